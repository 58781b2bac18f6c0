"""PSGTR in plain torch, written a second time: modules named as OpenPSG's weights are, arithmetic from the papers.

Knows: nothing of transformers or of the plugin. `state_dict()` gives the published names without their prefix
`bbox_head.` where they have one; `published()` adds it. Attention is torch.nn.MultiheadAttention's.
"""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional as F

TINY = {
    "stem": 8, "widths": (16, 32, 48, 64), "depths": (2, 1, 1, 1), "hidden": 128, "heads": 8, "feedforward": 48,
    "layers": (2, 3), "queries": 7, "classes": 133, "predicates": 56,
}  # fmt: skip
FULL = {
    "stem": 64, "widths": (256, 512, 1024, 2048), "depths": (3, 4, 6, 3), "hidden": 256, "heads": 8,
    "feedforward": 2048, "layers": (6, 6), "queries": 100, "classes": 133, "predicates": 56,
}  # fmt: skip


class Bottleneck(nn.Module):
    def __init__(self, inside, outside, stride):
        super().__init__()
        narrow = outside // 4
        self.conv1, self.bn1 = nn.Conv2d(inside, narrow, 1, bias=False), nn.BatchNorm2d(narrow)
        self.conv2, self.bn2 = nn.Conv2d(narrow, narrow, 3, stride, 1, bias=False), nn.BatchNorm2d(narrow)
        self.conv3, self.bn3 = nn.Conv2d(narrow, outside, 1, bias=False), nn.BatchNorm2d(outside)
        if inside != outside or stride != 1:
            self.downsample = nn.Sequential(nn.Conv2d(inside, outside, 1, stride, bias=False), nn.BatchNorm2d(outside))

    def forward(self, x):
        beside = self.downsample(x) if hasattr(self, "downsample") else x
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + beside)


class Backbone(nn.Module):
    def __init__(self, stem, widths, depths):
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(3, stem, 7, 2, 3, bias=False), nn.BatchNorm2d(stem)
        inside = stem
        for n, (width, depth) in enumerate(zip(widths, depths, strict=True), start=1):
            blocks = []
            for block in range(depth):
                blocks.append(Bottleneck(inside, width, 2 if n > 1 and block == 0 else 1))
                inside = width
            setattr(self, f"layer{n}", nn.Sequential(*blocks))

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, 2, 1)
        maps = []
        for n in range(1, 5):
            x = getattr(self, f"layer{n}")(x)
            maps.append(x)
        return maps


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.attn = nn.MultiheadAttention(width, heads, batch_first=True)

    def forward(self, query, key, value):
        return self.attn(query, key, value, need_weights=False)[0]


class FFN(nn.Module):
    def __init__(self, width, inner):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Sequential(nn.Linear(width, inner), nn.ReLU()), nn.Linear(inner, width), nn.Identity()
        )

    def forward(self, x):
        return self.layers(x)


class Layer(nn.Module):
    """Encoder layer with one attention, decoder layer with two; normalised after each step."""

    def __init__(self, width, heads, inner, attentions):
        super().__init__()
        self.attentions = nn.ModuleList(Attention(width, heads) for _ in range(attentions))
        self.ffns = nn.ModuleList([FFN(width, inner)])
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(attentions + 1))

    def forward(self, x, own, memory=None, where=None):
        x = self.norms[0](x + self.attentions[0](x + own, x + own, x))
        if memory is not None:
            x = self.norms[1](x + self.attentions[1](x + own, memory + where, memory))
        return self.norms[-1](x + self.ffns[0](x))


class Stack(nn.Module):
    def __init__(self, layers, normed, width):
        super().__init__()
        self.layers = nn.ModuleList(layers)
        if normed:
            self.post_norm = nn.LayerNorm(width)


class Transformer(nn.Module):
    def __init__(self, width, heads, inner, layers):
        super().__init__()
        self.encoder = Stack([Layer(width, heads, inner, 1) for _ in range(layers[0])], False, width)
        self.decoder = Stack([Layer(width, heads, inner, 2) for _ in range(layers[1])], True, width)

    def forward(self, x, where, ask):
        for layer in self.encoder.layers:
            x = layer(x, where)
        queries = torch.zeros_like(ask)
        for layer in self.decoder.layers:
            queries = layer(queries, ask, x, where)
        return self.decoder.post_norm(queries), x


class MLP(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(width, width), nn.Linear(width, width), nn.Linear(width, 4)])

    def forward(self, x):
        first, second, last = self.layers
        return last(F.relu(second(F.relu(first(x)))))


class AttentionMap(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.q_linear, self.k_linear, self.heads = nn.Linear(width, width), nn.Linear(width, width), heads

    def forward(self, queries, memory):  # (Q, D), (h*w, D) -> (Q, H, h*w)
        q = self.q_linear(queries).unflatten(-1, (self.heads, -1))
        k = self.k_linear(memory).unflatten(-1, (self.heads, -1))
        scores = torch.einsum("qhd,khd->qhk", q, k) / math.sqrt(q.shape[-1])
        # Over all heads together, not each by itself: so DETR's authors wrote it, and so the weights were trained.
        return scores.flatten(1).softmax(-1).view_as(scores)


class MaskHead(nn.Module):
    def __init__(self, width, heads, levels):
        super().__init__()
        inside, sizes = width + heads, [width + heads] + [width // part for part in (2, 4, 8, 16)]
        for n, size in enumerate(sizes, start=1):
            setattr(self, f"lay{n}", nn.Conv2d(inside, size, 3, padding=1))
            setattr(self, f"gn{n}", nn.GroupNorm(8, size))
            inside = size
        self.out_lay = nn.Conv2d(inside, 1, 3, padding=1)
        for n, level in enumerate(levels, start=1):
            setattr(self, f"adapter{n}", nn.Conv2d(level, sizes[n], 1))

    def step(self, n, x):
        return F.relu(getattr(self, f"gn{n}")(getattr(self, f"lay{n}")(x)))

    def forward(self, x, pyramid):
        x = self.step(2, self.step(1, x))
        for n, level in enumerate(pyramid, start=1):
            beside = getattr(self, f"adapter{n}")(level)
            x = self.step(n + 2, beside + F.interpolate(x, size=beside.shape[-2:], mode="nearest"))
        return self.out_lay(x)


class Head(nn.Module):
    def __init__(self, widths, hidden, heads, feedforward, layers, queries, classes, predicates):
        super().__init__()
        self.input_proj = nn.Conv2d(widths[-1], hidden, 1)
        self.query_embed = nn.Embedding(queries, hidden)
        self.transformer = Transformer(hidden, heads, feedforward, layers)
        self.rel_cls_embed = nn.Linear(hidden, predicates + 1)
        for role in ("sub", "obj"):
            setattr(self, f"{role}_cls_embed", nn.Linear(hidden, classes + 1))
            setattr(self, f"{role}_box_embed", MLP(hidden))
            setattr(self, f"{role}_bbox_attention", AttentionMap(hidden, heads))
            setattr(self, f"{role}_mask_head", MaskHead(hidden, heads, widths[-2::-1]))


class PublishedPSGTR(nn.Module):
    def __init__(self, stem, widths, depths, **head):
        super().__init__()
        self.backbone, self.bbox_head = Backbone(stem, widths, depths), Head(widths, **head)

    def forward(self, pixels):
        """One picture; every query's mask is drawn."""
        head = self.bbox_head
        maps = self.backbone(pixels)
        projected = head.input_proj(maps[-1])[0]  # (D, h, w)
        height, width = projected.shape[1:]
        rows = projected.flatten(1).T[None]
        where = sine(height, width, projected.shape[0])[None]
        queries, memory = head.transformer(rows, where, head.query_embed.weight[None])
        perceived = {"predicate": head.rel_cls_embed(queries)[0]}
        for role, name in (("sub", "subject"), ("obj", "object")):
            perceived[name] = getattr(head, f"{role}_cls_embed")(queries)[0]
            perceived[f"{name}_box"] = getattr(head, f"{role}_box_embed")(queries)[0].sigmoid()
            attention = getattr(head, f"{role}_bbox_attention")(queries[0], memory[0]).unflatten(-1, (height, width))
            stacked = torch.cat([projected.expand(len(attention), -1, -1, -1), attention], 1)
            perceived[f"{name}_mask"] = getattr(head, f"{role}_mask_head")(stacked, maps[-2::-1])[:, 0]
        return perceived


def sine(height, width, channels):
    """Carion et al. (DETR), appendix: half of the channels for y, half for x; positions from 0 to 2 pi."""
    half = channels // 2
    rates = 10000 ** (torch.arange(half) // 2 * 2 / half)
    places = []
    for length in (height, width):
        steps = torch.arange(1, length + 1) / (length + 1e-6) * 2 * math.pi
        angles = steps[:, None] / rates
        places.append(torch.where(torch.arange(half) % 2 == 0, angles.sin(), angles.cos()))
    ys, xs = places
    grid = torch.cat([ys[:, None].expand(-1, width, -1), xs[None].expand(height, -1, -1)], -1)
    return grid.flatten(0, 1)


# As torch starts them, networks this deep see the same everywhere and give every query the same answer.
LIVELY = {
    "backbone": 2.5, "encoder": 0.5, "attentions.1.attn.in_proj": 4, "cls_embed": 8, "box_embed": 3, "query_embed": 3,
    "q_linear": 4, "k_linear": 4, "mask_head": 2, "adapter": 0.01,
}  # fmt: skip


def seeded(size=None, seed=0):
    """A network in evaluation mode whose queries differ, with random statistics in its normalisation."""
    size = size or TINY
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        model = PublishedPSGTR(**size).eval()
        for name, tensor in model.state_dict().items():
            if name.endswith(("running_mean", "bias")):
                tensor.normal_(0, 0.1)
            elif name.endswith("running_var"):
                tensor.uniform_(0.5, 1.5)
            elif tensor.dim() > 1:
                tensor.mul_(math.prod(factor for part, factor in LIVELY.items() if part in name))
            if name.endswith("mask_head.lay1.weight"):
                tensor[:, size["hidden"] :].mul_(300)  # where a query looks must count beside what is there
    return model


def checkpoint(model):
    """As mmcv saves one: plain data beside the tensors, and an optimiser's state."""
    return {
        "meta": {"epoch": 60, "mmcv_version": "1.4.3", "env_info": "Python: 3.7", "CLASSES": ["person"]},
        "state_dict": model.state_dict(),
        "optimizer": {"state": {0: {"exp_avg": torch.zeros(3)}}, "param_groups": [{"lr": 1e-4, "params": [0]}]},
    }
