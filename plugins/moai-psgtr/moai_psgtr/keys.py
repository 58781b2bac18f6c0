"""Map the names of OpenPSG's weights to ours: pure renaming, and one tensor that becomes three.

Knows: how mmdetection names a ResNet and a DETR transformer (two generations of it), and how transformers does. Names
that follow no rule are returned, never dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

HEAD = r"bbox_head\."
BACKBONE = "detr.backbone.model"
_LAYER = HEAD + r"transformer\.(?P<side>encoder|decoder)\.layers\.(?P<n>\d+)\."
_OURS = r"detr.\g<side>.layers.\g<n>."
_SELF = r"(?:attentions\.0|self_attn)"
_CROSS = r"(?:attentions\.1|cross_attn|multihead_attn)"
_FFN = r"(?:ffns\.0|ffn)"
_END = r"\.(?P<end>weight|bias)"
_BN = r"\.(?P<end>weight|bias|running_mean|running_var)"
_ROLE = r"(?P<role>sub|obj)"

# Counts training batches; frozen normalisation has no use for it.
_IGNORED = re.compile(r"backbone\..*\.num_batches_tracked")
_PACKED = re.compile(_LAYER + rf"(?:(?P<self>{_SELF})|(?P<cross>{_CROSS}))\.attn\.in_proj_(?P<end>weight|bias)")
_NORMS = {"encoder": ("self_attn", "final"), "decoder": ("self_attn", "encoder_attn", "final")}
_NORM = re.compile(_LAYER + r"norms\.(?P<index>\d)" + _END)
_BLOCK = r"backbone\.layer(?P<stage>[1-4])\.(?P<block>\d+)\."
_CONV = re.compile(_BLOCK + r"conv(?P<conv>\d)\.weight")
_CONV_BN = re.compile(_BLOCK + r"bn(?P<conv>\d)" + _BN)
_SHORTCUT = re.compile(_BLOCK + r"downsample\.(?P<part>[01])" + _BN)
_ADAPTER = re.compile(HEAD + rf"{_ROLE}_mask_head\.adapter(?P<n>[123])" + _END)
_REFINE = re.compile(HEAD + rf"{_ROLE}_mask_head\.(?P<kind>lay|gn)(?P<n>[1-5])" + _END)

_PLAIN = [
    (r"backbone\.conv1\.weight", f"{BACKBONE}.embedder.embedder.convolution.weight"),
    (r"backbone\.bn1" + _BN, rf"{BACKBONE}.embedder.embedder.normalization.\g<end>"),
    (HEAD + r"input_proj" + _END, r"detr.input_projection.\g<end>"),
    (HEAD + r"query_embed(?:ding)?\.weight", "detr.query_position_embeddings.weight"),
    (HEAD + r"transformer\.decoder\.(?:post_)?norm" + _END, r"detr.decoder.layernorm.\g<end>"),
    (_LAYER + _SELF + r"\.attn\.out_proj" + _END, _OURS + r"self_attn.o_proj.\g<end>"),
    (_LAYER + _CROSS + r"\.attn\.out_proj" + _END, _OURS + r"encoder_attn.o_proj.\g<end>"),
    (_LAYER + _FFN + r"\.layers\.0\.0" + _END, _OURS + r"mlp.fc1.\g<end>"),
    (_LAYER + _FFN + r"\.layers\.1" + _END, _OURS + r"mlp.fc2.\g<end>"),
    (HEAD + _ROLE + r"_cls_embed" + _END, r"classes.\g<role>.\g<end>"),
    (HEAD + _ROLE + r"_box_embed\.layers\.(?P<n>\d)" + _END, r"boxes.\g<role>.layers.\g<n>.\g<end>"),
    (HEAD + r"rel_cls_embed" + _END, r"predicates.\g<end>"),
    (HEAD + _ROLE + r"_bbox_attention\.(?P<side>[qk])_linear" + _END, r"attention.\g<role>.\g<side>_proj.\g<end>"),
    (HEAD + _ROLE + r"_mask_head\.out_lay" + _END, r"masks.\g<role>.output_conv.\g<end>"),
]
_RULES = [(re.compile(pattern), target) for pattern, target in _PLAIN]


def convert(published: Mapping[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[str]]:
    """Rename the tensors of a published checkpoint.

    Args:
        published: names as in OpenPSG's `state_dict`, with `backbone.` and `bbox_head.` before them.

    Returns:
        The tensors under our names, and the names that no rule knows.
    """
    ours: dict[str, torch.Tensor] = {}
    unknown = []
    for name, tensor in published.items():
        if _IGNORED.fullmatch(name):
            continue
        if match := _PACKED.fullmatch(name):
            # One matrix for query, key and value, in this order, as torch.nn.MultiheadAttention keeps it.
            for part, rows in zip("qkv", tensor.chunk(3), strict=True):
                ours[match.expand(_OURS) + f"{_attention(match)}.{part}_proj.{match['end']}"] = rows
        elif target := rename(name):
            ours[target] = tensor
        else:
            unknown.append(name)
    return ours, unknown


def rename(name: str) -> str | None:
    """Return our name of one published tensor that stays whole; None when no rule has it."""
    for pattern, target in _RULES:
        if match := pattern.fullmatch(name):
            return match.expand(target)
    return _rename_backbone(name) or _rename_mask_head(name) or _rename_norm(name)


def _attention(match: re.Match) -> str:
    return "self_attn" if match["self"] else "encoder_attn"


def _rename_backbone(name: str) -> str | None:
    for pattern, kind in ((_CONV, "convolution"), (_CONV_BN, "normalization")):
        if match := pattern.fullmatch(name):
            end = "weight" if kind == "convolution" else match["end"]
            return f"{_block(match)}.layer.{int(match['conv']) - 1}.{kind}.{end}"
    if match := _SHORTCUT.fullmatch(name):
        kind = "convolution" if match["part"] == "0" else "normalization"
        return f"{_block(match)}.shortcut.{kind}.{match['end']}"
    return None


def _block(match: re.Match) -> str:
    return f"{BACKBONE}.encoder.stages.{int(match['stage']) - 1}.layers.{match['block']}"


def _rename_mask_head(name: str) -> str | None:
    if match := _ADAPTER.fullmatch(name):
        return f"masks.{match['role']}.fpn_stages.{int(match['n']) - 1}.fpn_adapter.{match['end']}"
    if match := _REFINE.fullmatch(name):
        number, part = int(match["n"]), "conv" if match["kind"] == "lay" else "norm"
        where = f"conv{number}" if number <= 2 else f"fpn_stages.{number - 3}.refine"
        return f"masks.{match['role']}.{where}.{part}.{match['end']}"
    return None


def _rename_norm(name: str) -> str | None:
    match = _NORM.fullmatch(name)
    if match is None or int(match["index"]) >= len(_NORMS[match["side"]]):
        return None
    return match.expand(_OURS) + f"{_NORMS[match['side']][int(match['index'])]}_layer_norm.{match['end']}"
