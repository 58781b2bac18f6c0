"""One mixer in step 2 against the published loop over samples, in the paper's form and in the published code's.

Knows: the mixer's parameters. The loop is a re-statement of the published arithmetic on the same weights.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from measure import Row, in_turns, operations, ratio, spread
from torch import Tensor

from moai.model.mixer.attention import AttentionModule, FactoredLinear
from moai.model.mixer.mixer import IMAGE_MODULES, LANGUAGE_MODULES, Mixer, Streams

TARGETS = {"moai": 3.0, "published": 1.2}
NAMES = {"moai": "paper's form", "published": "published form"}


def straight(mixer: Mixer, s: Streams) -> tuple[Tensor, Tensor]:
    """What is added to image and language tokens, sample by sample, module by module, head width as it is."""
    updates: tuple[list[Tensor], list[Tensor]] = ([], [])
    for row in range(len(s.image)):
        image, language, aux = s.image[row], s.language[row], s.aux[row]
        contexts = {"aux": aux, "language": language, "image": image}
        for own, x, names, gate in (
            (0, image, IMAGE_MODULES, mixer.gate_image),
            (1, language, LANGUAGE_MODULES, mixer.gate_language),
        ):
            weights = gate(x).softmax(dim=-1)
            read = [x if name.endswith("self") else contexts[name.rpartition("_")[2]] for name in names]
            blended = [x + _attend(mixer.attention[name], x, context) for name, context in zip(names, read)]
            mixed = sum(weights[:, i : i + 1] * part for i, part in enumerate(blended))
            updates[own].append(mixed - x)
    return torch.stack(updates[0]), torch.stack(updates[1])


def _attend(module: AttentionModule, x: Tensor, context: Tensor) -> Tensor:
    def project(linear: FactoredLinear, t: Tensor) -> Tensor:
        t = linear.up(linear.down(t))
        return F.gelu(t) if linear.gelu else t

    def split(t: Tensor) -> Tensor:
        return t.reshape(len(t), module.heads, -1).permute(1, 0, 2)

    q, k = split(project(module.query, x)), split(project(module.key, context))
    v = split(project(module.value, context))
    out = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).softmax(dim=-1) @ v
    return project(module.output, out.permute(1, 0, 2).reshape(len(x), -1))


def paper_mixer(width: int, arithmetic: str) -> Mixer:
    """Build a mixer that reads tokens as they are, with outputs that are not zero."""
    mixer = Mixer(width, rank=64, heads=4, arithmetic=arithmetic)
    mixer.normalize = False
    for module in mixer.attention.values():
        torch.nn.init.normal_(module.output.up.weight, std=64**-0.5)
    return mixer


def streams(rows: int, width: int, image: int, prompt: int, aux: int) -> Streams:
    """Random tokens, none of them padding."""
    generator = torch.Generator().manual_seed(3)
    tokens = [torch.randn(rows, count, width, generator=generator) for count in (image, prompt, aux)]
    masks = [torch.ones(t.shape[:2], dtype=torch.bool) for t in tokens]
    return Streams(tokens[0], masks[0], tokens[1], masks[1], tokens[2], masks[2])


def run(quick: bool, repeats: int) -> list[Row]:
    """A row per form; the floor is how many times fewer operations ours does."""
    rows, width = (2 if quick else 8), 4096
    s = streams(rows, width, 1225, 64, 64)
    return [_compare(arithmetic, s, repeats) for arithmetic in TARGETS]


@torch.no_grad()
def _compare(arithmetic: str, s: Streams, repeats: int) -> Row:
    torch.manual_seed(4)
    mixer = paper_mixer(s.image.shape[-1], arithmetic)
    for gate in (mixer.gate_image, mixer.gate_language):
        torch.nn.init.normal_(gate.weight, std=0.02)
    loop, ours = (lambda: straight(mixer, s)), (lambda: mixer(s))
    apart = max(float((a - b).abs().max()) for a, b in zip(loop(), ours()))
    if not apart < 1e-4:
        raise AssertionError(f"the two disagree by {apart}: a ratio of their times would mean nothing")
    counted = operations(loop), operations(ours)
    slow, fast = in_turns(loop, ours, repeats, warm=False)
    rows, image, width = s.image.shape
    return Row(
        f"mixer, {NAMES[arithmetic]}: published loop over ours",
        ratio(slow, fast), TARGETS[arithmetic], at_most=False, floor=counted[0] / counted[1],
        detail={"loop": spread(slow), "ours": spread(fast), "operations": counted, "apart": apart,
                "batch": rows, "image": image, "width": width},
    )  # fmt: skip
