"""What is put before the host: images and auxiliary words as vectors of the decoder's width.

Knows: tensors and modules; never a perception, never the host's layers.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moai.errors import PromptError, RecipeError
from moai.model.encoders.context import context_states
from moai.model.encoders.facts import fact_means, is_end, said_together
from moai.model.mixer.copying import mean_row, rows_of
from moai.model.mixer.gather import take
from moai.model.mixer.graft import half_precision
from moai.model.norms import unit


class Encoders:
    """The encoding half of the model; it needs the model's ``host``, ``holder``, ``config``, and what encodes.

    Scale: image features stand among the words as the connector gives them, at the scale of what the decoder reads.
    Hosts of the Gemma family scale words inside their embedding, which image features do not pass; hosts of the Granite
    family multiply whatever comes in, words and images, so there image features are divided by that factor first.
    """

    def encode_images(self, pixel_values: Tensor, input_ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """``pixel_values (N, 3, h, w)``, in the order of the placeholders, to ``(B, M, D)`` padded per row.

        ``keep (B,)`` zeroes the vision features of the rows that are false. Before the connector, never behind it: a
        zero embedding stays zero through every layer, and its gradient is multiplied by each norm's ``1 / sqrt(eps)``.

        Raises:
            PromptError: the placeholders in ``input_ids`` do not match the number of images.
        """
        counts = (input_ids == self.config.image_token_id).sum(dim=1)
        features = self.vision(pixel_values)
        if keep is not None:
            kept = keep.repeat_interleave(counts // self.config.image_tokens)
            features = features * kept[:, None, None].to(features.dtype)
        with self._precision():
            features = self.connector(features)  # (N, tokens, D)
        if int(counts.sum()) != features.shape[0] * features.shape[1]:
            raise PromptError(
                f"{int(counts.sum())} image placeholders for {features.shape[0]} images of "
                f"{features.shape[1]} tokens; build the inputs with MoaiProcessor"
            )
        rows = features.flatten(0, 1).split(counts.tolist())
        return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def encode_aux(
        self,
        aux_input_ids: Tensor,
        aux_attention_mask: Tensor,
        aux_pixel_values: Tensor | None = None,
        aux_pixel_mask: Tensor | None = None,
        aux_words: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Auxiliary tokens to compressed ones.

        Args:
            aux_input_ids, aux_attention_mask: the verbalized perception, ``(B, A)``.
            aux_pixel_values: panoptic maps ``(B, M, 3, h, w)``; ``aux_pixel_mask (B, M)`` says which are real.
            aux_words: ``(B, A, D)``, what :meth:`aux_words` makes of the words, for who keeps it.

        Returns:
            ``(B, C, D)`` and its mask ``(B, C)``, false for rows without any perception.
        """
        words = self.aux_words(aux_input_ids, aux_attention_mask) if aux_words is None else aux_words
        mask, marks = self._aux_masks(aux_input_ids, aux_attention_mask, aux_pixel_mask)
        with self._precision():
            if aux_pixel_values is not None:
                maps = self.connector(self.vision(aux_pixel_values.flatten(0, 1))).float()
                maps = maps if self.compressor.published else unit(maps)
                maps = maps.unflatten(0, aux_pixel_values.shape[:2])  # (B, M, tokens, D)
                words = torch.cat([words, maps.flatten(1, 2)], dim=1)
            states = self.compressor(words, mask, marks)
        return states, mask.any(dim=1)[:, None].expand(states.shape[:2])

    def aux_words(self, aux_input_ids: Tensor, aux_attention_mask: Tensor) -> Tensor:
        """Auxiliary words ``(B, A)`` as vectors ``(B, A, D)`` in fp32; only frozen weights take part."""
        words = self.get_input_embeddings()(aux_input_ids).float()
        if self.compressor.published:
            words = words * (self.word_factor * self.embedding_factor)  # at the scale of what the decoder reads
        else:
            words = unit(words - self.mean_word())
        if self.config.context_layer is not None and aux_input_ids.shape[1]:
            layer = self.config.context_layer
            words = unit(unit(words) + context_states(self.host, self.holder, aux_input_ids, aux_attention_mask, layer))
        if self.config.fact_ends is not None:
            ends, ordered = self.config.fact_ends, self.config.word_order
            facts = fact_means(words, aux_input_ids, aux_attention_mask, ends, ordered)
            words = unit(unit(words) + 2**0.5 * facts)  # its fact says more about a word than the word itself
        return words

    @torch.no_grad()
    def mean_word(self) -> Tensor:
        """What auxiliary words are centred by, ``(D,)`` in fp32: the mean of the word embeddings, computed once.

        Not while loading, since it reads the whole table, which may be the largest tensor of the host; and in pieces,
        since in fp32 the table may be larger than the host.
        """
        if self.aux_mean is None:
            table = self.get_input_embeddings().weight.detach()
            with torch.inference_mode(False):  # what is kept shall serve training too
                self.aux_mean = mean_row(table)
        return self.aux_mean

    @torch.no_grad()
    def aux_said(
        self, aux_input_ids: Tensor, aux_attention_mask: Tensor, aux_pixel_mask: Tensor | None = None
    ) -> Tensor:
        """The word that each compressed token starts from, as the host's output layer writes it.

        Args:
            aux_input_ids, aux_attention_mask, aux_pixel_mask: as for :meth:`encode_aux`.

        Returns:
            ``(B, C, D)`` at unit scale in fp32; zero where a token starts from none: of a map, or in a row without any.

        Raises:
            RecipeError: compressed tokens start from no words (``arithmetic: published``).
        """
        if self.compressor.published:
            raise RecipeError("mixer.copy_words needs arithmetic: moai; without, no token stands for a word")
        table = self.get_output_embeddings().weight
        if self.said_mean is None:
            with torch.inference_mode(False):
                self.said_mean = mean_row(table.detach())
        mask, ends = self._aux_masks(aux_input_ids, aux_attention_mask, aux_pixel_mask)
        words = torch.nn.functional.pad(aux_attention_mask.bool(), (0, mask.shape[1] - aux_input_ids.shape[1]))
        ids = torch.nn.functional.pad(aux_input_ids, (0, mask.shape[1] - aux_input_ids.shape[1]))
        starts = self._starts(mask, ends)
        return rows_of(table, ids.gather(1, starts), self.said_mean) * words.gather(1, starts)[..., None]

    def _starts(self, mask: Tensor, ends: Tensor | None) -> Tensor:
        """Which auxiliary token each compressed one starts from, ``(B, C)``."""
        order, length = self.compressor.order(mask, ends)
        return order.gather(1, self.compressor.slot_index(length))

    def question_mean(self, input_ids: Tensor, words: Tensor) -> Tensor:
        """What the words of a question say together: ``(B, D)`` at unit scale, in fp32; zero without any.

        With ``word_order`` also in which order, as in the facts.

        Args:
            input_ids: ``(B, S)``.
            words: ``(B, S)`` bool, true at the prompt's words, not at its images.
        """
        said = self.get_input_embeddings()(input_ids.masked_fill(~words, 0)).float()
        whole = torch.zeros_like(input_ids)
        return said_together(unit(said - self.mean_word()), words, whole, self.config.word_order)[:, 0]

    def _aux_masks(self, ids: Tensor, mask: Tensor, maps: Tensor | None) -> tuple[Tensor, Tensor | None]:
        """Which auxiliary tokens ``(B, A + tokens of maps)`` are real, and which of them only end a fact."""
        mask, ends = mask.bool(), self.config.fact_ends
        marks = None if ends is None else is_end(ids, ends) & mask
        if maps is not None:
            real = maps.bool().repeat_interleave(self.config.image_tokens, dim=1)
            mask = torch.cat([mask, real], dim=1)
            marks = None if marks is None else torch.cat([marks, torch.zeros_like(real)], dim=1)
        return mask, marks

    def guide_slots(
        self, marked: Tensor, aux_input_ids: Tensor, aux_attention_mask: Tensor, aux_pixel_mask: Tensor | None = None
    ) -> Tensor:
        """Marks on auxiliary words, as marks on the compressed tokens that start from these words.

        Args:
            marked: ``(B, G, A + 1)`` bool, groups of words; the last column, for the none token, stays the last.
            aux_input_ids, aux_attention_mask, aux_pixel_mask: as for :meth:`encode_aux`.

        Returns:
            ``(B, G, C + 1)`` bool. A word that no compressed token starts from loses its mark.

        Raises:
            RecipeError: compressed tokens start from no words (``arithmetic: published``).
        """
        if self.compressor.published:
            raise RecipeError("training.guide needs arithmetic: moai; without, no token stands for a word")
        mask, ends = self._aux_masks(aux_input_ids, aux_attention_mask, aux_pixel_mask)
        words = torch.nn.functional.pad(marked[..., :-1], (0, mask.shape[1] - marked.shape[-1] + 1))
        starts = self._starts(mask, ends)[:, None].expand(-1, marked.shape[1], -1)
        return torch.cat([words.gather(2, starts), marked[..., -1:]], dim=2)

    def _precision(self):
        """Adapters keep fp32 weights and compute in the host's half precision, in training as in inference."""
        return half_precision(self.host.get_input_embeddings().weight)

    def _embed(self, input_ids: Tensor, is_image: Tensor, image_features: Tensor | None) -> Tensor:
        table = self.get_input_embeddings()
        # The placeholder's id may lie outside the host's vocabulary; it is never looked up.
        words = table(input_ids.masked_fill(is_image, 0))
        if self.word_factor != 1.0:
            words = words * self.word_factor
        if image_features is None or image_features.shape[1] == 0:
            return words
        order = (is_image.long().cumsum(dim=1) - 1).clamp(min=0)  # k-th placeholder of its row
        order = order.clamp(max=image_features.shape[1] - 1)
        if self.embedding_factor != 1.0:
            image_features = image_features / self.embedding_factor
        images = take(image_features.to(words.dtype), order)
        return torch.where(is_image[..., None], images, words)
