"""Build what the mixers of one forward pass need: where its prompt segments stand, and what they attend to.

Knows: tensors.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from moai.model.mixer.forward_context import MixerInputs, locate, segments
from moai.model.mixer.gather import flat_positions


class Prompt(NamedTuple):
    """The window of the sequence that a forward pass runs on, ``(B, S)``."""

    input_ids: Tensor | None
    inputs_embeds: Tensor | None
    is_image: Tensor | None  # bool, true at placeholders
    words: Tensor | None  # bool, true at the prompt's words


class Auxiliary(NamedTuple):
    """Compressed tokens of a batch."""

    states: Tensor | None = None  # (B, C, D)
    mask: Tensor | None = None  # (B, C) bool, false for rows without any perception
    sources: Tensor | None = None  # (B, C, D), for mixers that copy words


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
    document_ids: Tensor | None = None,
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
        document_ids: ``(B, S)`` of packed rows.
    """
    rows, masks = segments(prompt_mask, attended, document_ids)
    states, states_mask, sources = aux
    if states is None:
        states = embeddings.new_zeros(len(prompt_mask), 0, embeddings.shape[1])
        states_mask = prompt_mask.new_zeros(len(prompt_mask), 0)

    def of_rows(x: Tensor | None) -> Tensor | None:
        return x if x is None or rows is None else x[rows]

    is_image = of_rows(prompt.is_image)
    words = masks & ~is_image
    image, language = locate(masks & is_image), locate(words)
    return MixerInputs(
        *image,
        *language,
        of_rows(states),
        of_rows(states_mask),
        flat_positions(torch.cat([image[0], language[0]], dim=1), masks.shape[1], rows),
        batch_rows=rows,
        choices=None if choices is None else [tuple(pair) for pair in choices.tolist()],
        question=None if question_embedding is None else question_embedding(of_rows(prompt.input_ids), words),
        sources=of_rows(sources),
        targets=of_rows(targets),
    )


def attended_in(attention_mask: Tensor | None, window: int) -> Tensor | None:
    """Which of the last ``window`` positions are no padding; ``None`` where the mask does not say."""
    return None if attention_mask is None else attention_mask.bool()[:, -window:]
