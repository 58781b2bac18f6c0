"""Parrot's connector: a projector, then a mixture of experts over the image tokens, routed by the turn's text.

Knows: tensors. ``N`` images, ``T`` tokens each, ``P`` words of text, ``D`` the decoder's width, ``E`` experts.
"""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from moai.errors import RecipeError, nearest
from moai.plugin_api import registry
from moai_parrot.mixture import Mixture, Residual

Query = Literal["class_token", "mean"]


class ParrotConnector(nn.Module):
    """LLaVA-1.5's projector and Parrot's mixture (arXiv 2406.02539).

    Args:
        in_width, out_width: of the vision encoder and of the decoder.
        query: what asks the text: the projected class token, as published, which is then an image token, too; or the
            mean of the projected patches, for encoders without a class token.
        experts, expert_width, top_k, residual, alpha: of :class:`Mixture`.

    Raises:
        RecipeError: an option that is out of its range.
    """

    optional = ("mixture",)

    def __init__(
        self,
        in_width: int,
        out_width: int,
        *,
        query: Query = "class_token",
        experts: int = 6,
        expert_width: int = 4096,
        top_k: int | None = None,
        residual: Residual = "identity",
        alpha: float = 1.0,
    ) -> None:
        super().__init__()
        if query not in get_args(Query):
            raise RecipeError(f"connector parrot: query '{query}' is unknown{nearest(query, get_args(Query))}")
        self.query, self.left_out = query, frozenset()
        self.projector = registry().get_connector("mlp")(in_width, out_width)
        self.mixture = Mixture(
            out_width, experts=experts, expert_width=expert_width, top_k=top_k, residual=residual, alpha=alpha
        )

    @property
    def reads_text(self) -> bool:
        """Whether it is called with text: not where the mixture is left out."""
        return "mixture" not in self.left_out

    @property
    def spatial(self) -> bool:
        """Whether the tokens keep the grid of patches, which a class token is not on."""
        return self.query == "mean"

    def tokens(self, patches: int) -> int:
        """As many as patches, and the class token where it asks."""
        return patches + (self.query == "class_token")

    def forward(self, vision: Any, text: Any = None) -> Tensor:
        """Project the features, and mix them by the text of their turn.

        Args:
            vision: ``VisionOutput``: patches ``(N, n, V)``, and the class token ``(N, V)``.
            text: ``TextInput``: word embeddings ``(N, P, D)`` and their mask; ``None`` for panoptic maps, and where the
                mixture is left out: then the projector's tokens are returned as they are.

        Returns:
            ``(N, T, D)``, the class token first.

        Raises:
            RecipeError: the class token asks, and the encoder gives none.
        """
        patches = vision.patches
        if self.query == "class_token":
            if vision.class_token is None:
                raise RecipeError(
                    "connector parrot asks by the class token, and the vision encoder gives none; set "
                    "vision.drop_first: 1 if it has one, or vision.connector.options.query: mean"
                )
            patches = torch.cat([vision.class_token[:, None], patches], dim=1)
        tokens = self.projector(vision._replace(patches=patches))
        if text is None:
            return tokens
        asking = tokens[:, 0] if self.query == "class_token" else tokens.mean(dim=1)
        return self.mixture(tokens, asking, text.embeddings, text.mask)
