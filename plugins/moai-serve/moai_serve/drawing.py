"""Several answers in one call of ``generate``, each drawn its own way.

Knows: transformers' logits processors and stopping criteria. The processor draws, and leaves only the token that was
drawn; ``generate`` itself runs greedily and takes it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import LogitsProcessor, StoppingCriteria

from moai_serve.choice import Choice


class Draw(LogitsProcessor):
    """Draw the next token of each answer that goes on.

    Args:
        choices: one per row.
        after: called after each step.
        filler: the token of rows that have ended.
    """

    def __init__(self, choices: Sequence[Choice], after: Callable[[], None], filler: int) -> None:
        self.choices, self.after, self.filler = choices, after, filler

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Draw from ``(B, V)`` scores; those that come back let ``argmax`` find what was drawn."""
        likeliest = scores.argmax(dim=-1).tolist()
        drawn = [self.filler] * len(self.choices)
        for row, choice in enumerate(self.choices):
            choice.check()
            if choice.ended is None:
                drawn[row] = likeliest[row] if choice.greedy else choice.draw(scores[row])
                choice.add(drawn[row], scores[row])
        self.after()
        picked = torch.full_like(scores, -torch.inf)
        return picked.scatter_(1, torch.tensor(drawn, device=scores.device)[:, None], 0.0)


class Ended(StoppingCriteria):
    """End each row with its answer."""

    def __init__(self, choices: Sequence[Choice]) -> None:
        self.choices = choices

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs: object) -> Tensor:
        """Return ``(B,)``, true where the answer has ended."""
        return torch.tensor([choice.ended is not None for choice in self.choices], device=input_ids.device)
