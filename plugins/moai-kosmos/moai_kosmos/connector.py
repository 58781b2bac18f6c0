"""Define KOSMOS-1's connector: learned queries pool an image's tokens by one attention.

Knows: modules. The paper cites Flamingo's resampler; the code that was released with Kosmos-2 has one attention layer
without residual, norm or feed-forward network, and this is that layer. ``N`` images, ``n`` tokens of one, ``V`` vision
width, ``D`` decoder width, ``Q`` queries.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.errors import RecipeError


class KosmosConnector(nn.Module):
    """Pool an image's tokens to ``queries`` tokens of decoder width.

    The encoder's tokens, the class token among them, are normalised to length one and projected; the queries attend to
    them and to themselves.

    Args:
        in_width, out_width: of the vision encoder, and of the decoder.
        queries: learned tokens, as many as an image has in the prompt.
        heads: of the attention.

    Raises:
        RecipeError: a number is below 1.
    """

    def __init__(self, in_width: int, out_width: int, queries: int = 64, heads: int = 32) -> None:
        super().__init__()
        if queries < 1 or heads < 1:
            raise RecipeError(
                f"vision.connector.options: {queries} queries and {heads} heads; give at least one of each"
            )
        self.heads = heads
        self.dense = nn.Linear(in_width, out_width)
        self.latent_query = nn.Parameter(torch.randn(queries, out_width))
        self.q_proj, self.k_proj = nn.Linear(out_width, out_width), nn.Linear(out_width, out_width)
        self.v_proj, self.out_proj = nn.Linear(out_width, out_width), nn.Linear(out_width, out_width)
        for linear in (self.dense, self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, vision) -> Tensor:
        """``(N, n, V) -> (N, Q, D)``.

        Raises:
            RecipeError: ``D`` is no multiple of the heads. Not before: tokens are counted on a narrow connector.
        """
        width = self.latent_query.shape[1]
        if width % self.heads:
            raise RecipeError(
                f"vision.connector.options: {self.heads} heads do not divide the decoder's width {width}; change heads"
            )
        x = vision.patches
        if vision.class_token is not None:  # of an encoder that keeps it apart
            x = torch.cat([vision.class_token[:, None], x], dim=1)
        x = self.dense(F.normalize(x.float(), dim=-1).to(x.dtype))
        latent = self.latent_query.to(x.dtype).expand(len(x), -1, -1)
        keys = torch.cat([x, latent], dim=1)  # (N, n + Q, D)
        query, key, value = (
            part(tokens).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for part, tokens in ((self.q_proj, latent), (self.k_proj, keys), (self.v_proj, keys))
        )
        pooled = F.scaled_dot_product_attention(query, key, value)
        return self.out_proj(pooled.transpose(1, 2).flatten(2))

    def tokens(self, patches: int) -> int:
        """As many as queries."""
        return len(self.latent_query)
