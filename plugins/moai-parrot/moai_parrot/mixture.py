"""Parrot's mixture of experts over image tokens, with one routing for each image.

Knows: tensors.
"""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from moai.errors import RecipeError, nearest

Residual = Literal["identity", "published"]
PUBLISHED_WEIGHT = 0.1  # `moe_weight`, which the published scripts leave at its default


class Expert(nn.Module):
    """SwiGLU without biases: ``down(silu(gate(x)) * up(x))``."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = nn.Linear(width, inner, bias=False)
        self.up = nn.Linear(width, inner, bias=False)
        self.down = nn.Linear(inner, width, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """``(..., D) -> (..., D)``."""
        return self.down(F.silu(self.gate(x)) * self.up(x))


class Mixture(nn.Module):
    """Weigh experts by what the image's class token finds in the text.

    With ``c`` the class token and ``H`` the text's word embeddings, ``e = softmax(c H^T / sqrt(D)) H`` and
    ``p = softmax(W e)``; ``M(X) = sum_i p_i E_i(X)`` is added to all tokens ``X`` of the image.

    Args:
        width: ``D``.
        experts: their number; six as published. It does not have to be the number of languages.
        expert_width: inner width of an expert.
        top_k: run only so many experts for an image, the likeliest, with their weights brought to a sum of one; None
            runs all. The published code has a setting of this name that it does not read.
        residual: ``identity`` gives ``X + alpha M(X)``, as in the paper, and starts as ``X`` itself, since the experts'
            last layers start at zero; ``published`` gives ``M(X) + 0.1 X``, as the published code does.
        alpha: of the form ``identity``.

    Raises:
        RecipeError: an option that is out of its range.
    """

    def __init__(
        self,
        width: int,
        *,
        experts: int = 6,
        expert_width: int = 4096,
        top_k: int | None = None,
        residual: Residual = "identity",
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        _check(experts, expert_width, top_k, residual)
        self.top_k, self.residual, self.alpha = top_k, residual, alpha
        self.router = nn.Linear(width, experts, bias=False)
        self.experts = nn.ModuleList(Expert(width, expert_width) for _ in range(experts))
        if residual == "identity":
            for expert in self.experts:
                nn.init.zeros_(expert.down.weight)

    def forward(self, x: Tensor, asking: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Mix the tokens of each image.

        Args:
            x: image tokens ``(N, T, D)``.
            asking: ``(N, D)``, of which each image's text is asked.
            text, mask: word embeddings ``(N, P, D)``, and ``(N, P)`` bool, true at one of them at least.

        Returns:
            ``(N, T, D)``.
        """
        mixed = self._mixed(x, self.weights(asking, text, mask))
        return mixed + PUBLISHED_WEIGHT * x if self.residual == "published" else x + self.alpha * mixed

    def weights(self, asking: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Compute the experts' weights ``(N, E)``, which sum to one; zero for those that ``top_k`` leaves out."""
        text = text.to(asking.dtype)
        found = F.scaled_dot_product_attention(asking[:, None], text, text, attn_mask=mask[:, None])[:, 0]
        weights = self.router(found).softmax(dim=-1)
        if self.top_k is None:
            return weights
        values, chosen = weights.topk(self.top_k, dim=-1)
        return torch.zeros_like(weights).scatter(1, chosen, values / values.sum(dim=-1, keepdim=True))

    def _mixed(self, x: Tensor, weights: Tensor) -> Tensor:
        pairs = list(zip(self.experts, weights.unbind(dim=1), strict=True))
        if self.top_k is None:
            return sum(weight[:, None, None] * expert(x) for expert, weight in pairs)
        if type(weights) is not Tensor:  # a plan's, without values to choose by: as many experts, whichever they are
            return sum(weight[:, None, None] * expert(x) for expert, weight in pairs[: self.top_k])
        mixed = torch.zeros_like(x)
        for expert, weight in pairs:
            rows = weight.nonzero()[:, 0]
            mixed = mixed.index_add(0, rows, (weight[rows, None, None] * expert(x[rows])).to(x.dtype))
        return mixed


def _check(experts: int, expert_width: int, top_k: int | None, residual: str) -> None:
    for name, value in (("experts", experts), ("expert_width", expert_width)):
        if value < 1:
            raise RecipeError(f"connector parrot: {name} is {value}; give at least 1")
    if top_k is not None and not 1 <= top_k <= experts:
        raise RecipeError(f"connector parrot: top_k is {top_k} and experts {experts}; give 1 to {experts}, or none")
    if residual not in get_args(Residual):
        raise RecipeError(f"connector parrot: residual '{residual}' is unknown{nearest(residual, get_args(Residual))}")
