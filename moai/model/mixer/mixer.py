"""The mixer: six attention modules and two gates that blend image, auxiliary and language features.

Knows: tensors. Source: MoAI (arXiv 2403.07508) section 3.3. Image tokens read auxiliary, language and image tokens;
language tokens read auxiliary, image and language tokens; a linear gate per stream weighs its three modules by softmax.
A model whose images have no tokens has two of the modules: language tokens read auxiliary and language tokens.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.errors import RecipeError
from moai.model.arithmetic import OURS, is_published
from moai.model.mixer.answers import AnswerCache
from moai.model.mixer.attention import AttentionModule
from moai.model.mixer.copying import Copying, weights_of_matches
from moai.model.mixer.gather import gather_tokens, scatter_add_tokens
from moai.model.mixer.masks import logit_bias, readable
from moai.model.mixer.matching import ASKING, directions, with_matches
from moai.model.mixer.stacked import CONTEXTS, StreamWeights, changing, fused, stack_weights
from moai.model.mixer.supervision import attention_loss
from moai.model.norms import rms_normalize
from moai.model.weight_cache import WeightCache, cache_weights, computing

IMAGE_MODULES, LANGUAGE_MODULES = tuple(changing("image")), tuple(changing("language"))
WITHOUT_IMAGES = {"image": (), "language": tuple(name for name in LANGUAGE_MODULES if CONTEXTS[name] != "image")}
READING = LANGUAGE_MODULES.index("language_aux")  # the module whose words are copied


class Streams(NamedTuple):
    """The three token streams of a batch, padded, each with a bool mask of its real tokens."""

    image: Tensor  # (B, I, D)
    image_mask: Tensor  # (B, I)
    language: Tensor  # (B, P, D)
    language_mask: Tensor  # (B, P)
    aux: Tensor  # (B, C, D)
    aux_mask: Tensor  # (B, C)
    question: Tensor | None = None  # (B, D) at unit scale: what all language tokens say together
    sources: Tensor | None = None  # (B, C, D) at unit scale: the word that each auxiliary token starts from
    matches: Tensor | None = None  # (B, C, 2) of find_matches


class Mixer(WeightCache):
    """Six attention modules and two gates for one decoder layer.

    Args:
        width: decoder width ``D``.
        image_stream: whether images have tokens; without them no module that changes or reads image tokens is built.
        arithmetic: ``"moai"``: each token is brought to unit root mean square before it is read, and the update is
            written in units of the token's own, since a residual stream is a hundred times larger in its last layers
            than in its first; ``"published"``: tokens as they are, and the modules' published form.
        tie_qk_at_init: start the modules that read auxiliary tokens with equal query and key projections, so that a
            token attends to its own word among them from the first step (ours; ``False`` is the published form).
        null_token: put one learned token after the auxiliary ones, to be read where none of them fits (ours); what an
            attention takes from it says "not there", which a softmax over the others alone cannot say.
        question_context: with how much weight beside their own state language tokens also carry what all of the
            question's words say together, from `Streams.question` (ours): the token that is about
            to answer is asked for the same words that the facts are made of, in every layer, and with a weight of some
            units hardly notices what mixers below have written into it. ``True`` is 1.
        copy_words: the last language token also takes the words that it reads as they are (ours): see
            :class:`~moai.model.mixer.copying.Copying`.
        answer_tokens: the tokens of an answer read auxiliary tokens as well (ours): see :meth:`answer_update`.
        copy_next: an answer's token also takes the auxiliary word after the one that it is equal to (ours); see
            ``moai.model.mixer.copying``. Needs ``answer_tokens``.
        match_words: with how much weight auxiliary tokens carry whether their words and facts hold words of the
            question, from `Streams.matches` (ours); see ``moai.model.mixer.matching``. Needs ``question_context``.
        qk_norm_scale, others: passed to each :class:`AttentionModule`.

    Raises:
        RecipeError: there is no such arithmetic, or it is the published one, which has none of what is marked as ours;
            or ``copy_next`` or ``match_words`` is given alone.
    """

    def __init__(
        self,
        width: int,
        *,
        image_stream: bool = True,
        arithmetic: str = "moai",
        qk_norm_scale: float | None = None,
        tie_qk_at_init: bool = False,
        null_token: bool = False,
        question_context: float = 0.0,
        copy_words: bool = False,
        answer_tokens: bool = False,
        copy_next: bool = False,
        match_words: float = 0.0,
        **others,
    ) -> None:
        super().__init__()
        given = (qk_norm_scale, tie_qk_at_init, null_token, question_context, copy_words, answer_tokens, copy_next,
                 match_words)  # fmt: skip
        ours = zip(OURS, given, strict=True)
        self.normalize = not is_published(arithmetic)
        if not self.normalize and (extra := [name for name, value in ours if value]):
            raise RecipeError(f"arithmetic: published has no mixer.{extra[0]}; use arithmetic: moai, or leave it out")
        if copy_next and not answer_tokens:
            raise RecipeError("mixer.copy_next is for the tokens of answers; set mixer.answer_tokens: true beside it")
        if match_words and not question_context:
            raise RecipeError("mixer.match_words is for tokens that carry the question; set mixer.question_context")
        self.question_context, self.match_words = float(question_context), float(match_words)
        self.built = {"image": IMAGE_MODULES, "language": LANGUAGE_MODULES} if image_stream else WITHOUT_IMAGES
        names = sum(self.built.values(), ())
        self.attention = nn.ModuleDict(
            {
                name: AttentionModule(width, arithmetic=arithmetic, qk_norm_scale=qk_norm_scale, **others)
                for name in names
            }
        )
        self.fuses = all(module.low_rank and module.plain for module in self.attention.values())
        self.null = nn.Parameter(torch.randn(1, 1, width)) if null_token else None
        heads = self.attention["language_aux"].heads
        self.answers = answer_tokens
        self.copying = Copying(width, heads) if copy_words else None
        self.copying_next = Copying(width, heads) if copy_next else None
        self.gate_image = nn.Linear(width, 3) if image_stream else None
        self.gate_language = nn.Linear(width, len(self.built["language"]))
        for gate in self.gates():  # equal weights until step 2 learns better ones
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)
        if tie_qk_at_init:
            for module in (module for name, module in self.attention.items() if CONTEXTS[name] == "aux"):
                module.key.load_state_dict(module.query.state_dict())

    def gates(self) -> tuple[nn.Linear, ...]:
        """The gates of the image stream, where there is one, and of the language stream."""
        return tuple(gate for gate in (self.gate_image, self.gate_language) if gate is not None)

    def forward(self, s: Streams, choice: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Return the updates ``(B, I, D)`` and ``(B, P, D)`` to add to the image and language tokens.

        The gates' weights sum to one, so adding the weighted updates to the tokens equals the paper's weighted sum of
        modules that each add their query.

        Args:
            s: the streams.
            choice: step 1's draw: the index of the one module to run per modality, among those that are built, in the
                order of ``IMAGE_MODULES`` and ``LANGUAGE_MODULES``. ``None`` blends all of them by the gates.
        """
        scales: tuple[Tensor | float, Tensor | float] = (1.0, 1.0)
        if self.normalize:
            scales = (_size(s.image), _size(s.language))
            image, language = self.inputs(s)
            s = s._replace(image=image, language=language)
        aux = self.readable(s)
        streams = {"image": (s.image, s.image_mask), "language": (s.language, s.language_mask), "aux": aux}
        streams = {name: stream for name, stream in streams.items() if self.built.get(name, True)}
        weights = {} if choice else self._weights(s.image, s.language)
        if choice is None and self.fuses and all(tokens.shape[1] for tokens, _ in streams.values()):
            one, made = self.attention["language_self"], self._stream_weights(computing(s.language))
            updates = dict(zip(weights, fused(one, made, streams, weights), strict=True))
        else:
            contexts = {name: streams[CONTEXTS[name]] for name in self.attention}
            picks = dict(zip(self.built, choice or (None, None), strict=True))
            updates = {
                name: self._blend(streams[name][0], names, weights.get(name), contexts, picks[name])
                for name, names in self.built.items()
                if names
            }
        image_update, language_update = updates.get("image", torch.zeros_like(s.image)), updates["language"]
        if self.copying is not None and s.sources is not None and (choice is None or choice[1] == READING):
            language_update = self._with_sources(language_update, s, aux)
        return image_update * scales[0], language_update * scales[1]

    def _with_sources(self, update: Tensor, s: Streams, aux: tuple[Tensor, Tensor]) -> Tensor:
        """``update (B, P, D)`` with the words that each row's last token reads."""
        if s.sources.shape[1] == 0 or s.language.shape[1] == 0:
            return update
        last = _last(s.language_mask)
        query = gather_tokens(s.language, last)  # (B, 1, D)
        read = self.attention["language_aux"].weights(query, *aux)
        return scatter_add_tokens(update, last, self.copying(query, read[..., : s.sources.shape[1]], s.sources))

    def answer_cache(
        self,
        aux: Tensor,
        mask: Tensor,
        sources: Tensor | None = None,
        following: Tensor | None = None,
        matches: Tensor | None = None,
    ) -> AnswerCache:
        """Compute what is the same for all answer tokens.

        Args:
            aux, mask: compressed tokens ``(B, C, D)``, ``(B, C)``.
            sources, following: ``(B, C, D)``, words to copy.
            matches: ``(B, C, 2)``, as in :class:`Streams`.
        """
        dtype = computing(aux)
        some = mask.any(dim=1)[:, None, None].to(dtype)
        aux, mask = self._with_null(self._matched(aux, matches), mask)
        gates = [(self.gate_language.weight, self.gate_language.bias)]
        pairs = ((self.copying, sources), (self.copying_next, following))
        copied = [(copying.scaled(), words) for copying, words in pairs if copying is not None and words is not None]
        gates += [gate for gate, _ in copied]
        return AnswerCache(
            self.attention["language_aux"].offer(aux),
            logit_bias(readable(mask), dtype)[:, None, None],
            some,
            tuple(torch.cat(parts).to(dtype) for parts in zip(*gates, strict=True)),
            torch.cat([words.to(dtype) for _, words in copied], dim=1) if copied else None,
        )

    def answer_update(
        self,
        x: Tensor,
        cache: AnswerCache,
        question: Tensor | None,
        matches: Tensor | None,
        choice: tuple[int, int] | None = None,
    ) -> Tensor:
        """Return the updates ``(B, N, D)`` to add to an answer's tokens: what they take from auxiliary tokens.

        They read by the module, the gate and the copied words of the prompt's last token, which stands where they do:
        it says the answer's first token, and they say the following ones. They read neither image nor language.

        Args:
            x: answer tokens ``(B, N, D)``.
            cache: of :meth:`answer_cache`.
            question: ``(B, D)``, as in :class:`Streams`.
            matches: ``(B, N, C)`` bool of ``longest_matches``, where the word after is copied.
            choice: step 1's draw; where it is another module, answer tokens take nothing.
        """
        if choice is not None and choice[1] != READING:
            return torch.zeros_like(x)
        scale, x = _size(x), self._asking(rms_normalize(x), question)
        module = self.attention["language_aux"]
        read, logits, weights = module.read_offered(x, cache.offered, cache.bias)
        gates, built = F.linear(x.to(cache.gates[0].dtype), *cache.gates), len(self.built["language"])  # (B, N, G)
        update = module.output.widen(read)
        if choice is None:
            update = update * gates[..., :built].softmax(dim=-1)[..., READING, None]
        if cache.words is not None:
            found, opened = [], iter(gates[..., built:].transpose(1, 2)[..., None].split(module.heads, dim=1))
            if self.copying is not None:
                count = len(weights[0, 0, 0]) - (self.null is not None)
                found.append((next(opened) * weights[..., :count]).sum(dim=1))
            if matches is not None:
                at = weights_of_matches(logits[..., : matches.shape[-1]], matches)
                found.append((next(opened) * at).sum(dim=1))
            update = update + torch.cat(found, dim=-1) @ cache.words  # (B, N, W) words
        return update * (scale * cache.some)

    def cache_weights(self, dtype: torch.dtype) -> None:
        """See :class:`WeightCache`."""
        if self.answers:
            cache_weights([self.attention["language_aux"]], dtype)
        if not self.fuses:
            cache_weights(self.attention.values(), dtype)
            return
        with torch.no_grad():
            self.cached = (dtype, stack_weights(self.attention, dtype))

    def _stream_weights(self, dtype: torch.dtype) -> dict[str, StreamWeights]:
        if self.cached is not None and not torch.is_grad_enabled() and self.cached[0] == dtype:
            return self.cached[1]
        return stack_weights(self.attention, dtype)

    def _weights(self, image: Tensor, language: Tensor) -> dict[str, Tensor]:
        # Of the modules that are built: (B, I, 3), (B, P, 3 or 2)
        weights = {} if self.gate_image is None else {"image": self.gate_image(image).softmax(dim=-1)}
        return {**weights, "language": self.gate_language(language).softmax(dim=-1)}

    def _blend(self, x, names, weights, contexts, pick: int | None) -> Tensor:
        if pick is not None:
            return self.attention[names[pick]](x, *contexts[names[pick]])
        modules = [self.attention[name] for name in names]
        if all(module.plain for module in modules):
            # Without an activation behind them, three projections of weighted inputs are one: nothing is stacked.
            read = [module.read(x, *contexts[name]) for name, module in zip(names, modules, strict=True)]
            joined = torch.cat([part * weights[..., i, None] for i, part in enumerate(read)], dim=-1)  # (B, T, 3r)
            return F.linear(joined, torch.cat([module.output.up.weight for module in modules], dim=1))
        total = weights[..., 0, None] * modules[0](x, *contexts[names[0]])
        for i, (name, module) in enumerate(zip(names[1:], modules[1:], strict=True), 1):
            total = total + weights[..., i, None] * module(x, *contexts[name])
        return total

    def inputs(self, s: Streams) -> tuple[Tensor, Tensor]:
        """Image and language tokens as queries, keys and gates see them."""
        if not self.normalize:
            return s.image, s.language
        return rms_normalize(s.image), self._asking(rms_normalize(s.language), s.question)

    def _asking(self, x: Tensor, question: Tensor | None) -> Tensor:
        """Tokens ``(B, T, D)`` that also carry the question ``(B, D)``."""
        if not self.question_context or question is None:
            return x
        question = question[:, None].to(x.dtype)
        if self.match_words:
            question = question + ASKING * directions(x.shape[-1], x).sum(dim=0)
        return rms_normalize(x + self.question_context * question)

    def readable(self, s: Streams) -> tuple[Tensor, Tensor]:
        """Auxiliary tokens and their mask as the modules attend to them, with the null token at the end."""
        return self._with_null(self._matched(s.aux, s.matches), s.aux_mask)

    def _matched(self, aux: Tensor, matches: Tensor | None) -> Tensor:
        return with_matches(aux, matches, self.match_words) if self.match_words and matches is not None else aux

    def _with_null(self, aux: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        if self.null is None or aux.shape[1] == 0:
            return aux, mask
        null = self.null.to(aux.dtype).expand(len(aux), -1, -1)
        return torch.cat([aux, null], dim=1), torch.cat([mask, mask.any(dim=1, keepdim=True)], dim=1)

    def attention_loss(self, s: Streams, targets: Tensor) -> Tensor:
        """How far the last language token's attention is from what it should read: :func:`attention_loss`.

        Args:
            s: the streams.
            targets: ``(B, G, C + 1)`` bool, groups of tokens, the last column for the null token.
        """
        query = gather_tokens(self.inputs(s)[1], _last(s.language_mask))
        aux, mask = self.readable(s)
        logits = self.attention["language_aux"].logits(query, aux)[:, :, 0]
        asking = s.language_mask.any(dim=1)
        return attention_loss(logits, mask, targets[..., : logits.shape[2]] & asking[:, None, None])

    def gate_weights(self, s: Streams) -> tuple[Tensor, Tensor]:
        """The gates' softmax weights, ``(B, I, 3)`` and ``(B, P, 3)``, zero for what is not built; for pictures."""
        image, language = self.inputs(s)
        weights = self._weights(image, language)
        if self.gate_image is not None:
            return weights["image"], weights["language"]
        made = language.new_zeros(*language.shape[:2], len(LANGUAGE_MODULES), dtype=weights["language"].dtype)
        made[..., [LANGUAGE_MODULES.index(name) for name in self.built["language"]]] = weights["language"]
        return image.new_zeros(*image.shape[:2], len(IMAGE_MODULES)), made


def _last(mask: Tensor) -> Tensor:
    """The position of each row's last real token, ``(B, 1)``; 0 where there is none."""
    return (mask.sum(dim=1, keepdim=True) - 1).clamp(min=0)


def _size(x: Tensor) -> Tensor:
    """Root mean square per token, ``(B, T, 1)``; a scale, so nothing is learnt through it."""
    return x.detach().float().square().mean(dim=-1, keepdim=True).sqrt().to(x.dtype)
