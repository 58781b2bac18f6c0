"""Map the published checkpoint's names to ours.

Knows: strings. Names read in github.com/ByungKwanLee/MoAI at a7728a8: a decoder of the InternLM2 layout, wrapped in
PLoRA, with MoAI's modules inside the self-attention of every 8th layer.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from moai.errors import CheckpointError

VISION = "vit.vision_tower.vision_model."
# Buffers that some versions of transformers saved; nothing is learnt in them.
BUFFERS = (".inv_freq", ".position_ids")
MODULES = {
    "moai_CA_img_aux": "image_aux", "moai_CA_img_lang": "image_language", "moai_SA_img": "image_self",
    "moai_CA_lang_aux": "language_aux", "moai_CA_lang_img": "language_image", "moai_SA_lang": "language_self",
}  # fmt: skip
PROJECTIONS = {"linear_q": "query", "linear_k": "key", "linear_v": "value", "linear_o": "output"}
GATES = {"moai_GA_img": "gate_image", "moai_GA_lang": "gate_language"}
FEEDFORWARD = {"w1": ("gate", "gate_proj"), "w3": ("up", "up_proj"), "w2": ("down", "down_proj")}
RESAMPLER = {
    "0.norm_media.weight": "norm_input.weight", "0.norm_media.bias": "norm_input.bias",
    "0.norm_latents.weight": "norm_latents.weight", "0.norm_latents.bias": "norm_latents.bias",
    "0.to_q.weight": "query.weight", "0.to_kv.weight": "key_value.weight", "0.to_out.weight": "output.weight",
    "1.0.weight": "feedforward.0.weight", "1.0.bias": "feedforward.0.bias",
    "1.1.weight": "feedforward.1.weight", "1.3.weight": "feedforward.3.weight",
}  # fmt: skip
SHOWN = 20  # names that an error lists


@dataclass(frozen=True)
class Layout:
    """Hold the sizes that the names depend on."""

    layers: int
    bias: bool  # of the attention's linear layers
    depth: int = 4  # of the resampler

    @property
    def mixed(self) -> list[int]:
        """List the layers with a mixer: every 8th."""
        return [layer for layer in range(self.layers) if (layer + 1) % 8 == 0]


def host_names(layout: Layout) -> dict[str, tuple[str, ...]]:
    """Map published names to those in ``PLoRALlamaForCausalLM``: three where queries, keys and values are fused."""
    names = {
        "model.tok_embeddings.weight": ("model.embed_tokens.weight",),
        "model.norm.weight": ("model.norm.weight",),
        "output.weight": ("lm_head.weight",),
    }
    for layer in range(layout.layers):
        names.update(_layer_names(f"model.layers.{layer}.", f"plora.{layer}.", layout.bias))
    return names


def _layer_names(at: str, plora: str, bias: bool) -> dict[str, tuple[str, ...]]:
    names = {
        f"{at}attention_norm.weight": (f"{at}input_layernorm.weight",),
        f"{at}ffn_norm.weight": (f"{at}post_attention_layernorm.weight",),
        f"{at}attention.wqkv.Plora_A.weight": (f"{plora}qkv.down.weight",),
        f"{at}attention.wqkv.Plora_B.weight": tuple(f"{plora}qkv.up.{part}.weight" for part in range(3)),
        f"{at}attention.wo.Plora_A.weight": (f"{plora}o.down.weight",),
        f"{at}attention.wo.Plora_B.weight": (f"{plora}o.up.0.weight",),
    }
    for kind in ("weight", "bias") if bias else ("weight",):
        names[f"{at}attention.wqkv.Plora_main.{kind}"] = tuple(f"{at}self_attn.{part}_proj.{kind}" for part in "qkv")
        names[f"{at}attention.wo.Plora_main.{kind}"] = (f"{at}self_attn.o_proj.{kind}",)
    for theirs, (group, ours) in FEEDFORWARD.items():
        names[f"{at}feed_forward.{theirs}.Plora_main.weight"] = (f"{at}mlp.{ours}.weight",)
        names[f"{at}feed_forward.{theirs}.Plora_A.weight"] = (f"{plora}{group}.down.weight",)
        names[f"{at}feed_forward.{theirs}.Plora_B.weight"] = (f"{plora}{group}.up.0.weight",)
    return names


def adapter_names(layout: Layout) -> dict[str, str]:
    """Map published names to those of our own checkpoint: connector, compressor and mixers."""
    names = {f"vision_proj.{part}.{kind}": f"connector.{part}.{kind}" for part in (0, 2) for kind in ("weight", "bias")}
    names["moai_compressor.latents"] = "compressor.latents"
    for kind in ("weight", "bias"):
        names[f"moai_compressor.norm.{kind}"] = f"compressor.norm.{kind}"
    for level in range(layout.depth):
        for theirs, ours in RESAMPLER.items():
            names[f"moai_compressor.layers.{level}.{theirs}"] = f"compressor.layers.{level}.{ours}"
    for layer in layout.mixed:
        at, to = f"model.layers.{layer}.attention.", f"mixers.{layer}."
        for gate, ours in GATES.items():
            names.update({f"{at}{gate}.{kind}": f"{to}{ours}.{kind}" for kind in ("weight", "bias")})
        for module, name in MODULES.items():
            for linear, ours in PROJECTIONS.items():
                for index, side in enumerate(("down", "up")):
                    names[f"{at}{module}.{linear}.{index}.weight"] = f"{to}attention.{name}.{ours}.{side}.weight"
    return names


def check_names(found: Iterable[str], expected: Mapping[str, object], where: str) -> None:
    """Refuse a checkpoint that lacks a tensor or holds one that has no place here.

    Raises:
        CheckpointError: lists what is missing and what is unknown.
    """
    found = {name for name in found if not name.endswith(BUFFERS)}
    missing, unknown = sorted(set(expected) - found), sorted(found - set(expected))
    problems = [f"{kind}: {_listed(names)}" for kind, names in (("missing", missing), ("unknown", unknown)) if names]
    if problems:
        raise CheckpointError(
            f"{where} is not the published checkpoint that its configuration describes; {'; '.join(problems)}"
        )


def _listed(names: list[str]) -> str:
    rest = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + rest
