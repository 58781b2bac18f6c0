"""Encode auxiliary tokens: the verbalized perception, and panoptic maps, condensed by the compressor.

Knows: tensors, the host's word embeddings and lower layers; never a perception.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moai.errors import PromptError, RecipeError
from moai.model.encoders.compressor import Compressor
from moai.model.encoders.context import context_states
from moai.model.encoders.facts import fact_embeddings, fact_numbers, is_end, pooled_embedding
from moai.model.encoders.image_input import ImageInput
from moai.model.encoders.vision import without_memory
from moai.model.mixer.copying import LOOK_BACK, NO_WORD, histories, mean_row, rows_of
from moai.model.mixer.graft import Graft, half_precision
from moai.model.mixer.inputs import Auxiliary
from moai.model.mixer.matching import find_matches
from moai.model.norms import rms_normalize


class AuxiliaryEncoder(nn.Module):
    """Word embeddings of the verbalized perception, condensed to ``C`` tokens.

    Args:
        host: for its word embeddings and, with ``context_layer``, its lower layers.
        images: encodes panoptic maps.
        compressor: arguments of :class:`Compressor`; None for a model without mixers, which reads none of it.
        centered: bring word embeddings to zero mean over the vocabulary and unit variance; false is the published form.
        context_layer, fact_ends, word_order: of :class:`moai.model.config.MoaiConfig`.
        scale: what to multiply embeddings by where they are not centred, so that they have the decoder's scale.
        image_tokens: per panoptic map.
        empty: make the compressor without memory, for weights that come next.
    """

    def __init__(
        self,
        host: nn.Module,
        images: ImageInput,
        compressor: dict[str, Any] | None,
        *,
        centered: bool = True,
        context_layer: int | None = None,
        fact_ends: Iterable[int] | None = None,
        word_order: bool = False,
        scale: float = 1.0,
        image_tokens: int = 1,
        empty: bool = False,
    ) -> None:
        super().__init__()
        self._host, self._images = (host,), (images,)  # in tuples: registered once, by the model
        self.graft: Graft | None = None  # set by the model, whose hooks stop at ``context_layer``
        self.copies = self.copies_next = self.matches = False  # set by the model: what its mixers need
        width = host.get_input_embeddings().embedding_dim
        with without_memory() if empty else nullcontext():
            self.compressor = None if compressor is None else Compressor(width, **compressor)
        self.centered, self.context_layer, self.scale = centered, context_layer, scale
        self.fact_ends = None if fact_ends is None else tuple(fact_ends)
        self.word_order, self.image_tokens = word_order, image_tokens
        self.register_buffer("embedding_mean", None, persistent=False)  # computed by the first call that needs it
        self.register_buffer("unembedding_mean", None, persistent=False)

    @property
    def host(self) -> nn.Module:
        """The model's host."""
        return self._host[0]

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        words: Tensor | None = None,
        trace: Any = None,
    ) -> tuple[Tensor, Tensor]:
        """Encode auxiliary tokens as compressed ones.

        Args:
            input_ids, attention_mask: the verbalized perception, ``(B, A)``.
            pixel_values: panoptic maps ``(B, M, 3, h, w)``; ``pixel_mask (B, M)`` says which are real.
            words: ``(B, A, D)``, what :meth:`words` returns, where it was cached.
            trace: a ``moai.model.analysis.attribution.Trace`` that records the compressor's attention.

        Returns:
            ``(B, C, D)`` and its mask ``(B, C)``, false for rows without any perception.
        """
        words = self.words(input_ids, attention_mask) if words is None else words
        mask, ends = self._masks(input_ids, attention_mask, pixel_mask)
        with half_precision(self.host.get_input_embeddings().weight):
            if pixel_values is not None:
                maps = self._images[0].encode_maps(pixel_values.flatten(0, 1))
                maps = rms_normalize(maps) if self.centered else maps
                maps = maps.unflatten(0, pixel_values.shape[:2])  # (B, M, tokens, D)
                words = torch.cat([words, maps.flatten(1, 2)], dim=1)
            states = self.compressor(words, mask, ends, trace)
        return states, mask.any(dim=1)[:, None].expand(states.shape[:2])

    def encode(
        self,
        input_ids: Tensor,
        attention_mask: Tensor,
        pixel_values: Tensor | None = None,
        pixel_mask: Tensor | None = None,
        words: Tensor | None = None,
        trace: Any = None,
    ) -> Auxiliary:
        """Encode auxiliary tokens, with what mixers need of them that copy words: see :meth:`forward`."""
        states, mask = self(input_ids, attention_mask, pixel_values, pixel_mask, words, trace)
        made = Auxiliary(states, mask)
        if self.copies:
            made = made._replace(sources=self.sources(input_ids, attention_mask, pixel_mask))
        if self.copies_next:
            following, history = self.following(input_ids, attention_mask, pixel_mask)
            made = made._replace(following=following, words=history)
        if self.matches:
            made = made._replace(starts=self.starts(input_ids, attention_mask, pixel_mask))
        return made

    def words(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Embed auxiliary words ``(B, A)`` as ``(B, A, D)`` in fp32; in context without gradients."""
        words = self.host.get_input_embeddings()(input_ids).float()
        words = rms_normalize(words - self.mean_embedding()) if self.centered else words * self.scale
        if self.context_layer is not None and input_ids.shape[1]:
            states = context_states(self.host, self.graft, input_ids, attention_mask, self.context_layer)
            words = rms_normalize(rms_normalize(words) + states)
        if self.fact_ends is not None:
            facts = fact_embeddings(words, input_ids, attention_mask, self.fact_ends, self.word_order)
            # Its fact says more about a word than the word itself.
            words = rms_normalize(rms_normalize(words) + 2**0.5 * facts)
        return words

    @torch.no_grad()
    def mean_embedding(self) -> Tensor:
        """The mean of the word embeddings, ``(D,)`` in fp32, computed once; zero where words are not centred.

        Not while loading, since it reads the whole table, which may be the largest tensor of the host; and in pieces,
        since in fp32 the table may be larger than the host.
        """
        if self.embedding_mean is not None:
            return self.embedding_mean
        table = self.host.get_input_embeddings().weight
        with torch.inference_mode(False):  # what is cached shall serve training too
            none = torch.zeros(table.shape[1], device=table.device)
            mean = mean_row(table.detach()) if self.centered else none
        if not table.requires_grad:
            self.embedding_mean = mean
        return mean

    def forget_means(self) -> None:
        """Drop the cached means of word embeddings; needed where the embeddings change."""
        self.embedding_mean = self.unembedding_mean = None

    @torch.no_grad()
    def sources(self, input_ids: Tensor, attention_mask: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
        """Find the word that each compressed token starts from, as the host's output layer writes it.

        Args:
            input_ids, attention_mask, pixel_mask: as for :meth:`forward`.

        Returns:
            ``(B, C, D)`` at unit scale in fp32; zero where a token starts from no word: of a map, or in a row without
            any.

        Raises:
            RecipeError: compressed tokens start from no words (``arithmetic: published``).
        """
        self._check_starts("mixer.copy_words")
        mask, ends = self._masks(input_ids, attention_mask, pixel_mask)
        ids, words = self._padded(mask, input_ids, attention_mask)
        starts = self._starts(mask, ends)
        return self._rows(ids.gather(1, starts)) * words.gather(1, starts)[..., None]

    @torch.no_grad()
    def following(
        self, input_ids: Tensor, attention_mask: Tensor, pixel_mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Find the word after the one that each compressed token starts from, in the same fact.

        Args:
            input_ids, attention_mask, pixel_mask: as for :meth:`forward`.

        Returns:
            as :meth:`sources` its row, ``(B, C, D)``, zero where the fact ends; and the word that the token starts from
            with those before it in its fact, ``(B, C, LOOK_BACK)``, ``NO_WORD`` where there is none.

        Raises:
            RecipeError: compressed tokens start from no words (``arithmetic: published``), or it is not known which
                words belong together.
        """
        self._check_starts("mixer.copy_next")
        mask, ends = self._masks(input_ids, attention_mask, pixel_mask)
        ids, inside, number = self._facts("mixer.copy_next", mask, input_ids, attention_mask)
        past = ids.new_full((len(ids), LOOK_BACK - 1), NO_WORD)
        history = histories(ids.masked_fill(~inside, NO_WORD), past)  # (B, A, LOOK_BACK)
        numbers = histories(number, past)
        history = history.masked_fill(numbers != number[..., None], NO_WORD)
        starts = self._starts(mask, ends)
        after = F.pad(ids[:, 1:], (0, 1)).gather(1, starts)
        there = F.pad(inside[:, 1:], (0, 1)).gather(1, starts) & inside.gather(1, starts)
        found = history.gather(1, starts[..., None].expand(-1, -1, LOOK_BACK))
        return self._rows(after) * there[..., None], found

    @torch.no_grad()
    def starts(self, input_ids: Tensor, attention_mask: Tensor, pixel_mask: Tensor | None = None) -> Tensor:
        """Find the word that each compressed token starts from, and the number of its fact.

        Args:
            input_ids, attention_mask, pixel_mask: as for :meth:`forward`.

        Returns:
            ``(B, C, 2)``; ``NO_WORD`` in the place of a word where a token starts from none of a fact.

        Raises:
            RecipeError: as :meth:`following`.
        """
        self._check_starts("mixer.match_words")
        mask, ends = self._masks(input_ids, attention_mask, pixel_mask)
        ids, inside, number = self._facts("mixer.match_words", mask, input_ids, attention_mask)
        starts = self._starts(mask, ends)
        words = ids.masked_fill(~inside, NO_WORD)
        return torch.stack([words.gather(1, starts), number.gather(1, starts)], dim=-1)

    @torch.no_grad()
    def find_matches(self, input_ids: Tensor, words: Tensor, starts: Tensor) -> Tensor:
        """Compare a question's words with those of facts: :func:`~moai.model.mixer.matching.find_matches`.

        Args:
            input_ids, words: as for :meth:`question_embedding`.
            starts: ``(B, C, 2)``, of :meth:`starts`.
        """
        table = self.host.get_input_embeddings().weight
        return find_matches(input_ids.masked_fill(~words, 0), words, starts, table, self.mean_embedding())

    def _facts(self, key: str, mask: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, ...]:
        """Ids of all auxiliary tokens, which of them are in a fact, and its number."""
        if self.fact_ends is None:
            raise RecipeError(f"{key} needs perception.fact_context: true, which says where facts end")
        ids, words = self._padded(mask, input_ids, attention_mask)
        return (ids, *fact_numbers(ids, words, self.fact_ends))

    def _rows(self, ids: Tensor) -> Tensor:
        """Words ``(B, C)`` as the host's output layer writes them, ``(B, C, D)``."""
        table = self.host.get_output_embeddings().weight
        mean = self.unembedding_mean
        if mean is None:
            with torch.inference_mode(False):
                mean = mean_row(table.detach())
            self.unembedding_mean = None if table.requires_grad else mean
        return rows_of(table, ids, mean)

    def _padded(self, mask: Tensor, input_ids: Tensor, attention_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Ids, and which are words, over all auxiliary tokens: those of maps are none."""
        more = mask.shape[1] - input_ids.shape[1]
        return F.pad(input_ids, (0, more)), F.pad(attention_mask.bool(), (0, more))

    def question_embedding(self, input_ids: Tensor, words: Tensor) -> Tensor:
        """Pool the words of a question: ``(B, D)`` at unit scale, in fp32; zero without any.

        With ``word_order`` their order counts, as in the facts.

        Args:
            input_ids: ``(B, S)``.
            words: ``(B, S)`` bool, true at the prompt's words, not at its images.
        """
        embedded = self.host.get_input_embeddings()(input_ids.masked_fill(~words, 0)).float()
        whole = torch.zeros_like(input_ids)
        return pooled_embedding(rms_normalize(embedded - self.mean_embedding()), words, whole, self.word_order)[:, 0]

    def target_latents(
        self, targets: Tensor, input_ids: Tensor, attention_mask: Tensor, pixel_mask: Tensor | None = None
    ) -> Tensor:
        """Turn target masks over auxiliary words into masks over the compressed tokens that start from these words.

        Args:
            targets: ``(B, G, A + 1)`` bool, groups of words; the last column, for the null token, stays the last.
            input_ids, attention_mask, pixel_mask: as for :meth:`forward`.

        Returns:
            ``(B, G, C + 1)`` bool. A word that no compressed token starts from is no target any more.

        Raises:
            RecipeError: compressed tokens start from no words (``arithmetic: published``).
        """
        self._check_starts("training.attention_supervision")
        mask, ends = self._masks(input_ids, attention_mask, pixel_mask)
        words = F.pad(targets[..., :-1], (0, mask.shape[1] - targets.shape[-1] + 1))
        starts = self._starts(mask, ends)[:, None].expand(-1, targets.shape[1], -1)
        return torch.cat([words.gather(2, starts), targets[..., -1:]], dim=2)

    def checked(self, given: Auxiliary | None) -> Auxiliary:
        """Return compressed tokens, perhaps none, and refuse them without what the mixers need of them.

        Raises:
            PromptError: the mixers copy words, and the compressed tokens came without theirs.
        """
        if given is None or given.states is None:
            return Auxiliary()
        needed = {"sources": self.copies, "following": self.copies_next, "starts": self.matches}
        if any(wanted and getattr(given, name) is None for name, wanted in needed.items()):
            raise PromptError(
                "this model copies or matches words, which aux does not hold; make it by auxiliary.encode, or give "
                "aux_input_ids"
            )
        return given

    def _check_starts(self, key: str) -> None:
        if self.compressor.published:
            raise RecipeError(f"{key} needs arithmetic: moai; no compressed token of the other starts from a word")

    def _starts(self, mask: Tensor, ends: Tensor | None) -> Tensor:
        """Which auxiliary token each compressed one starts from, ``(B, C)``."""
        order, length = self.compressor.order(mask, ends)
        return order.gather(1, self.compressor.start_index(length))

    def _masks(self, ids: Tensor, mask: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Which auxiliary tokens ``(B, A + tokens of maps)`` are real, and which of them only end a fact."""
        mask = mask.bool()
        ends = None if self.fact_ends is None else is_end(ids, self.fact_ends) & mask
        if maps is not None:
            real = maps.bool().repeat_interleave(self.image_tokens, dim=1)
            mask = torch.cat([mask, real], dim=1)
            ends = None if ends is None else torch.cat([ends, torch.zeros_like(real)], dim=1)
        return mask, ends
