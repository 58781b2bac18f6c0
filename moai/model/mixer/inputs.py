"""Build what the mixers of one forward pass need: where its prompt segments stand, and what they attend to.

Knows: tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from moai.model.mixer.answers import AnswerCache, AnswerInputs, answer_masks
from moai.model.mixer.copying import LOOK_BACK, NO_ANSWER, histories, longest_matches
from moai.model.mixer.forward_context import MixerInputs, locate, segments
from moai.model.mixer.gather import flat_positions


class Prompt(NamedTuple):
    """The window of the sequence that a forward pass runs on, ``(B, S)``."""

    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    is_image: Tensor | None  # bool, true at placeholders
    words: Tensor | None  # bool, true at the prompt's words


class Auxiliary(NamedTuple):
    """Compressed tokens of a batch, and what ``generate`` caches beside them for the answer's tokens."""

    states: Tensor | None = None  # (B, C, D)
    mask: Tensor | None = None  # (B, C) bool, false for rows without any perception
    sources: Tensor | None = None  # (B, C, D), for mixers that copy words
    following: Tensor | None = None  # (B, C, D), for mixers that copy the word after
    words: Tensor | None = None  # (B, C, LOOK_BACK), the word that each token starts from and those before it
    starts: Tensor | None = None  # (B, C, 2), for mixers that match words, as in find_matches
    caches: tuple[AnswerCache, ...] | None = None  # one for each mixer
    prompt_mask: Tensor | None = None  # (B, S) bool of the prompt that ``generate`` was given
    question: Tensor | None = None  # (B, D) that the answer is for, where the prompt is in the cache
    earlier_question: Tensor | None = None  # (B, D) of the turn that the cache ends in
    matches: Tensor | None = None  # (B, C, 2) of that question
    earlier_matches: Tensor | None = None  # (B, C, 2) of the earlier one
    before: Tensor | None = None  # (B, LOOK_BACK - 1) tokens before the window; NO_ANSWER where they are no answer's

    def at_window(self, input_ids: Tensor, length: int) -> Auxiliary:
        """Return it for the last ``length`` tokens of ``input_ids (B, S)``, those before them in the cache."""
        start, end = input_ids.shape[1] - length, input_ids.shape[1]
        given = self.prompt_mask.shape[1]
        current = start >= given
        question = self.question if current else self.earlier_question
        asked = {"question": question, "matches": self.matches if current else self.earlier_matches}
        if self.words is None:
            return self._replace(**asked)
        prompt = F.pad(self.prompt_mask, (0, max(0, end - given)))[:, :end]
        answers = F.pad(input_ids.masked_fill(prompt, NO_ANSWER), (LOOK_BACK - 1, 0), value=NO_ANSWER)
        return self._replace(**asked, before=answers[:, start : start + LOOK_BACK - 1])

    def expand(self, times: int) -> Auxiliary:
        """Repeat each row, as beams and several return sequences do."""
        caches = None if self.caches is None else tuple(one.expand(times) for one in self.caches)
        rest = {name: part.repeat_interleave(times, dim=0) for name, part in self._asdict().items() if _is_tensor(part)}
        return self._replace(**rest, caches=caches)


def prompt_of(
    input_ids: Tensor | None, inputs_embeds: Tensor | None, prompt_mask: Tensor | None, image_token_id: int
) -> Prompt:
    """Tell a prompt's words from its images."""
    is_image = None if input_ids is None else input_ids == image_token_id
    words = None if prompt_mask is None or is_image is None else prompt_mask & ~is_image
    return Prompt(input_ids, inputs_embeds, is_image, words)


def mixer_inputs(
    prompt: Prompt,
    prompt_mask: Tensor,
    attended: Tensor | None,
    aux: Auxiliary,
    *,
    embeddings: Tensor,
    choices: Tensor | None = None,
    targets: Tensor | None = None,
    question_embedding: Callable[[Tensor, Tensor], Tensor] | None = None,
    find_matches: Callable[[Tensor, Tensor, Tensor], Tensor] | None = None,
    document_ids: Tensor | None = None,
    cached: int | None = None,
) -> MixerInputs:
    """Build the inputs of all mixers of one forward pass.

    Args:
        prompt, prompt_mask: ``prompt_mask (B, S)`` bool is what is mixed.
        attended: ``(B, S)`` bool, false at padding; ``None`` without any.
        aux: compressed tokens; without any, mixers attend to image and language tokens alone.
        embeddings: the host's table, for dtype, device and width.
        choices: ``(mixers, 2)`` step 1's draw.
        targets: ``(B, G, C + 1)`` of attention supervision.
        question_embedding: pools the words of a question, for mixers that use it.
        find_matches: compares these words with ``aux.starts``, for mixers that match words.
        document_ids: ``(B, S)`` of packed rows.
        cached: of mixers whose answer tokens read auxiliary tokens, how many tokens are in the cache; where there are
            any, the window begins in an answer.
    """
    rows, masks = segments(prompt_mask, attended, document_ids)
    if aux.states is None:
        nothing = embeddings.new_zeros(len(prompt_mask), 0, embeddings.shape[1])
        aux = aux._replace(states=nothing, mask=prompt_mask.new_zeros(len(prompt_mask), 0))

    def of_rows(x: Tensor | None) -> Tensor | None:
        return x if x is None or rows is None else x[rows]

    is_image = of_rows(prompt.is_image)
    words = masks & ~is_image
    image, language = locate(masks & is_image), locate(words)
    made = MixerInputs(
        *image,
        *language,
        of_rows(aux.states),
        of_rows(aux.mask),
        flat_positions(torch.cat([image[0], language[0]], dim=1), masks.shape[1], rows),
        batch_rows=rows,
        choices=None if choices is None else [tuple(pair) for pair in choices.tolist()],
        question=None if question_embedding is None else question_embedding(of_rows(prompt.input_ids), words),
        sources=of_rows(aux.sources),
        targets=of_rows(targets),
    )
    if find_matches is not None and aux.starts is not None:
        made.word_matches = find_matches(of_rows(prompt.input_ids), words, of_rows(aux.starts))
    if cached is not None and aux.states.shape[1]:
        free = ~prompt_mask if attended is None else attended & ~prompt_mask
        rows = torch.arange(len(masks), device=masks.device) if rows is None else rows
        made.answers = _answer_inputs(prompt, masks, rows, free, aux, made, document_ids, cached > 0)
    return made


def continued_inputs(prompt: Prompt, aux: Auxiliary) -> MixerInputs:
    """Build the inputs of a window of answer tokens whose prompt is in the cache."""
    states = aux.states
    nothing = torch.zeros(len(states), 0, dtype=torch.long, device=states.device)
    matches = None
    if aux.words is not None:
        matches = longest_matches(histories(prompt.input_ids, _before(aux, prompt.input_ids)), aux.words)
    given = (states, aux.mask, aux.question, aux.sources, aux.following, aux.matches, matches)
    answers = AnswerInputs(*given, caches=aux.caches)
    none = nothing.bool()
    return MixerInputs(nothing, none, nothing, none, states, aux.mask, nothing, answers=answers)


def _answer_inputs(
    prompt: Prompt,
    segments: Tensor,
    rows: Tensor,
    free: Tensor,
    aux: Auxiliary,
    asked: MixerInputs,
    document_ids: Tensor | None,
    continued: bool,
) -> AnswerInputs | None:
    """Build what the answers after each prompt segment need; None where there is no answer token."""
    rows, masks = answer_masks(segments, rows, free, document_ids, continued)
    index, real = locate(masks)
    if index.shape[1] == 0:
        return None
    matches = None
    if aux.words is not None:
        ids = prompt.input_ids[rows].masked_fill(~masks, NO_ANSWER)
        before = ids.new_full((len(rows), LOOK_BACK - 1), NO_ANSWER)
        if continued:
            before[: len(free)] = _before(aux, ids[: len(free)])
        tokens = histories(ids, before).gather(1, index[..., None].expand(-1, -1, LOOK_BACK))  # (R, N, LOOK_BACK)
        matches = longest_matches(tokens, aux.words[rows])
    question, word_matches = asked.question, asked.word_matches
    if continued:
        question, word_matches = _after(aux.question, question, len(free)), _after(aux.matches, word_matches, len(free))

    def of_rows(x: Tensor | None) -> Tensor | None:
        return x if x is None else x[rows]

    parts = (of_rows(part) for part in (aux.states, aux.mask))
    copied = (of_rows(part) for part in (aux.sources, aux.following))
    return AnswerInputs(
        *parts, question, *copied, word_matches, matches, real, flat_positions(index, masks.shape[1], rows)
    )


def _after(earlier: Tensor | None, now: Tensor | None, rows: int) -> Tensor | None:
    """Put what belongs to the earlier question, one for each row of the batch, before what belongs to the segments."""
    if now is None:
        return None
    earlier = now.new_zeros(rows, *now.shape[1:]) if earlier is None else earlier
    return torch.cat([earlier.to(now.dtype), now])


def _before(aux: Auxiliary, ids: Tensor) -> Tensor:
    """The tokens before the window, as far as they are known."""
    return ids.new_full((len(ids), LOOK_BACK - 1), NO_ANSWER) if aux.before is None else aux.before


def attended_in(attention_mask: Tensor | None, window: int) -> Tensor | None:
    """Which of the last ``window`` positions are no padding; ``None`` where the mask does not say."""
    return None if attention_mask is None else attention_mask.bool()[:, -window:]


def last_segment(prompt: Tensor, prompt_mask: Tensor) -> Tensor:
    """Find those of the tokens ``prompt (B, S)`` that no answer separates from the last of them."""
    answers = (~prompt_mask).long()
    after = answers.flip(1).cumsum(dim=1).flip(1)
    least = after.masked_fill(~prompt, prompt.shape[1] + 1).amin(dim=1, keepdim=True)
    return prompt & (after == least)


def _is_tensor(part: object) -> bool:
    return isinstance(part, Tensor)
