"""Define MM1's connectors beside average pooling: attention pooling, and Honeybee's C-Abstractor.

Knows: tensors, and timm's layers. MM1 (arXiv 2403.09611) section 3.2 compares the three with 64 and with 144 tokens.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from timm.layers import AttentionPoolLatent, LayerNorm2d
from timm.models.regnet import RegStage
from torch import Tensor, nn
from torch.nn import functional

from moai.errors import RecipeError


class Queries(AttentionPoolLatent):
    """Start timm's queries from a plain normal draw, which also runs on shapes alone, as for a plan."""

    def init_weights(self) -> None:
        """Draw them with variance ``1 / width``."""
        nn.init.normal_(self.latent, std=self.latent.shape[-1] ** -0.5)


class AttentionPooling(nn.Module):
    """Pool patches by one cross-attention of learned queries, then one linear layer.

    The paper names the form and the numbers of queries, and no further detail. The layer is timm's: queries, attention
    with ``heads`` heads, and a feed-forward network around which its input is added.

    Args:
        in_width: of the patches.
        out_width: of the decoder.
        tokens: learned queries, each of which becomes a token.
        heads: of the attention.

    Raises:
        RecipeError: ``heads`` does not divide the patches' width.
    """

    def __init__(self, in_width: int, out_width: int, tokens: int = 144, heads: int = 8) -> None:
        super().__init__()
        if in_width % heads:
            raise RecipeError(
                f"connector attention_pooling: {heads} heads do not divide the patches' width {in_width}; "
                "change vision.connector.options.heads"
            )
        self.pool = Queries(in_width, num_heads=heads, latent_len=tokens, pool_type="")
        self.project = nn.Linear(in_width, out_width)

    def forward(self, vision) -> Tensor:
        """``(N, n, V) -> (N, tokens, D)``."""
        return self.project(self.pool(vision.patches))

    def tokens(self, patches: int) -> int:
        """As many as queries."""
        return self.pool.latent_len


class CAbstractor(nn.Module):
    """Honeybee's C-Abstractor (arXiv 2312.06742): residual convolutions around an average pooling.

    Positions are added to the patches. Three RegNet blocks come before the pooling to a square of ``tokens`` places and
    three after it, with SiLU and layer norms over channels; then Linear, SiLU, Linear. The published code has a
    position for the class token too, which it then drops with the token; here there is none.

    Args:
        in_width: of the patches.
        out_width: of the decoder.
        tokens: a square number; MM1 has 64 and 144.
        patches: that the encoder gives of an image, a square number: one position each.
        width: of the convolutions.
        depth: RegNet blocks before the pooling, and after it.

    Raises:
        RecipeError: ``tokens`` or ``patches`` is no square number.
    """

    spatial = True

    def __init__(
        self,
        in_width: int,
        out_width: int,
        tokens: int = 144,
        patches: int = 576,
        width: int = 1024,
        depth: int = 3,
    ) -> None:
        super().__init__()
        sides = {"tokens": math.isqrt(tokens), "patches": math.isqrt(patches)}
        for name, number in (("tokens", tokens), ("patches", patches)):
            if number < 1 or sides[name] ** 2 != number:
                raise RecipeError(
                    f"connector c_abstractor: {name} is {number}, and a grid is a square number such as 64 or 144; "
                    f"change vision.connector.options.{name}"
                )
        self.positions = nn.Parameter(torch.empty(1, patches, in_width))
        nn.init.normal_(self.positions, std=0.02)
        stage = partial(RegStage, depth, stride=1, dilation=1, act_layer=nn.SiLU, norm_layer=LayerNorm2d)
        self.before = stage(in_chs=in_width, out_chs=width)
        self.pool = nn.AdaptiveAvgPool2d(sides["tokens"])
        self.after = stage(in_chs=width, out_chs=width)
        self.readout = nn.Sequential(nn.Linear(width, out_width), nn.SiLU(), nn.Linear(out_width, out_width))
        self.register_load_state_dict_pre_hook(_fit_positions)

    def forward(self, vision) -> Tensor:
        """``(N, n, V) -> (N, tokens, D)``.

        Raises:
            RecipeError: the encoder gives another number of patches than there are positions.
        """
        patches = vision.patches
        self.tokens(patches.shape[1])
        side = math.isqrt(patches.shape[1])
        x = (patches + self.positions).transpose(1, 2).unflatten(2, (side, side))  # (N, V, side, side)
        x = self.after(self.pool(self.before(x)))  # (N, width, k, k)
        return self.readout(x.flatten(2).transpose(1, 2))

    def tokens(self, patches: int) -> int:
        """As many as the pooled grid has places.

        Raises:
            RecipeError: the encoder gives another number of patches than there are positions.
        """
        if patches != self.positions.shape[1]:
            raise RecipeError(
                f"connector c_abstractor has positions for {self.positions.shape[1]} patches and the encoder gives "
                f"{patches}; set vision.connector.options.patches to {patches}, or change vision.image_size"
            )
        return self.pool.output_size**2


def _fit_positions(module: CAbstractor, state: dict[str, Tensor], prefix: str, *_: object) -> None:
    """Interpolate positions of another number of patches, where a run goes on at another resolution."""
    name, patches = f"{prefix}positions", module.positions.shape[1]
    given = state.get(name)
    if given is None or given.shape[1] == patches:
        return
    old, new = math.isqrt(given.shape[1]), math.isqrt(patches)
    grid = given.float().unflatten(1, (old, old)).permute(0, 3, 1, 2)
    grid = functional.interpolate(grid, (new, new), mode="bicubic", antialias=old > new)
    state[name] = grid.permute(0, 2, 3, 1).flatten(1, 2).to(given.dtype)
