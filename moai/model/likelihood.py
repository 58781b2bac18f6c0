"""Score given answers by their probability under the model.

Knows: batches with labels, as the processor builds them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from moai.model.processor.prompts import IGNORED

if TYPE_CHECKING:
    from moai.model.modeling import MoaiForConditionalGeneration
    from moai.model.processor.processor import MoaiProcessor


class Score(NamedTuple):
    """Hold the log probability of a text, and whether a greedy answer would begin with it."""

    logprob: float
    greedy: bool


@torch.no_grad()
def score_answers(
    model: MoaiForConditionalGeneration, processor: MoaiProcessor, batch: Mapping[str, Any]
) -> list[Score]:
    """Score the answer that ends each conversation of a batch: the sum of its tokens' log probabilities.

    The token that closes a turn is no part of an answer.

    Args:
        model, processor: of one run.
        batch: of ``processor.batch(conversations, .., labels=True)``, on the model's device.
    """
    inputs = dict(batch)
    answer = answer_tokens(processor, inputs.pop("labels"), inputs["attention_mask"].bool())
    first = int(answer.int().argmax(dim=1).min())
    answer, ids = answer[:, first:], inputs["input_ids"][:, first:]  # (B, W)
    logits = model(**inputs, use_cache=False, logits_to_keep=ids.shape[1] + 1).logits[:, :-1]  # (B, W, V)
    chances = logits.float().log_softmax(dim=-1)
    picked = chances.gather(-1, ids.clamp(max=chances.shape[-1] - 1)[..., None]).squeeze(-1).double()
    picked = picked.masked_fill(~answer, 0.0)
    placeholder = processor.image_token_id  # never generated; it may lie outside the vocabulary
    chances[..., placeholder : placeholder + 1] = -torch.inf
    greedy = (chances.argmax(dim=-1) == ids) | ~answer
    return [Score(*pair) for pair in zip(picked.sum(dim=1).tolist(), greedy.all(dim=1).tolist(), strict=True)]


def answer_tokens(processor: MoaiProcessor, labels: Tensor, attended: Tensor) -> Tensor:
    """Mask the last answer's tokens, ``(B, S)``: labels that only labels follow, without the closing token."""
    labelled = labels != IGNORED
    others = (attended & ~labelled).long()
    last = others.flip(1).cumsum(dim=1).flip(1) == 0
    closing = torch.isin(labels, torch.tensor(processor.prompts.stops, device=labels.device))
    return labelled & last & ~closing
