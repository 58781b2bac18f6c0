"""The mixer: six attention modules and two gates that blend image, auxiliary and language features.

Knows: tensors. Source: MoAI (arXiv 2403.07508) section 3.3. Image tokens read auxiliary, language and image tokens;
language tokens read auxiliary, image and language tokens; a linear gate per stream weighs its three modules by softmax.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from moai.model.attention import AttentionModule

IMAGE_MODULES = ("image_aux", "image_language", "image_self")
LANGUAGE_MODULES = ("language_aux", "language_image", "language_self")


class Streams(NamedTuple):
    """The three token streams of a batch, padded, each with a bool mask of its real tokens."""

    image: Tensor  # (B, I, D)
    image_mask: Tensor  # (B, I)
    language: Tensor  # (B, P, D)
    language_mask: Tensor  # (B, P)
    aux: Tensor  # (B, C, D)
    aux_mask: Tensor  # (B, C)


class Mixer(nn.Module):
    """Six attention modules and two gates for one decoder layer.

    Args:
        width: decoder width ``D``.
        normalize: bring each token to unit root mean square before it is read, and write the update in units of the
            token's own, since a residual stream is a hundred times larger in its last layers than in its first (ours);
            ``False`` is the published arithmetic.
        others: passed to each :class:`AttentionModule`.
    """

    def __init__(self, width: int, *, normalize: bool = True, **others) -> None:
        super().__init__()
        self.normalize = normalize
        names = IMAGE_MODULES + LANGUAGE_MODULES
        self.attention = nn.ModuleDict({name: AttentionModule(width, **others) for name in names})
        self.gate_image = nn.Linear(width, 3)
        self.gate_language = nn.Linear(width, 3)
        for gate in (self.gate_image, self.gate_language):  # equal weights until step 2 learns better ones
            nn.init.zeros_(gate.weight)
            nn.init.zeros_(gate.bias)

    def forward(self, s: Streams, choice: tuple[int, int] | None = None) -> tuple[Tensor, Tensor]:
        """Return the updates ``(B, I, D)`` and ``(B, P, D)`` to add to the image and language tokens.

        The gates' weights sum to one, so adding the weighted updates to the tokens equals the paper's weighted sum of
        modules that each add their query.

        Args:
            s: the streams.
            choice: step 1's draw: the index of the one module to run per modality, in the order of
                ``IMAGE_MODULES`` and ``LANGUAGE_MODULES``. ``None`` blends all three by the gates.
        """
        scales: tuple[Tensor | float, Tensor | float] = (1.0, 1.0)
        if self.normalize:
            scales = (_size(s.image), _size(s.language))
            s = s._replace(image=unit(s.image), language=unit(s.language))
        contexts = {
            "image_aux": (s.aux, s.aux_mask),
            "image_language": (s.language, s.language_mask),
            "image_self": (s.image, s.image_mask),
            "language_aux": (s.aux, s.aux_mask),
            "language_image": (s.image, s.image_mask),
            "language_self": (s.language, s.language_mask),
        }
        picks = choice or (None, None)
        image_update = self._blend(s.image, IMAGE_MODULES, self.gate_image, contexts, picks[0])
        language_update = self._blend(s.language, LANGUAGE_MODULES, self.gate_language, contexts, picks[1])
        return image_update * scales[0], language_update * scales[1]

    def _blend(self, x, names, gate, contexts, pick: int | None) -> Tensor:
        if pick is not None:
            return self.attention[names[pick]](x, *contexts[names[pick]])
        weights = gate(x).softmax(dim=-1)  # (B, T, 3)
        updates = torch.stack([self.attention[name](x, *contexts[name]) for name in names], dim=-1)
        return (updates * weights.unsqueeze(-2)).sum(dim=-1)

    def gate_weights(self, s: Streams) -> tuple[Tensor, Tensor]:
        """The two gates' softmax weights, ``(B, I, 3)`` and ``(B, P, 3)``; for pictures and tests."""
        image, language = (unit(s.image), unit(s.language)) if self.normalize else (s.image, s.language)
        return self.gate_image(image).softmax(dim=-1), self.gate_language(language).softmax(dim=-1)


def unit(x: Tensor) -> Tensor:
    """Each vector at unit root mean square; zero stays zero."""
    return F.rms_norm(x, (x.shape[-1],), eps=1e-6)


def _size(x: Tensor) -> Tensor:
    """Root mean square per token, ``(B, T, 1)``; a scale, so nothing is learnt through it."""
    return x.detach().float().square().mean(dim=-1, keepdim=True).sqrt().to(x.dtype)
