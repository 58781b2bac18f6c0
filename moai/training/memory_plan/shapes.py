"""Shapes of hosts and vision encoders for a plan: from a recipe's references, or described in a few numbers.

Knows: configurations of transformers. Weights are never read.
"""

from __future__ import annotations

from pathlib import Path

from transformers import AutoConfig, AutoModel, CLIPVisionConfig, LlamaConfig, PreTrainedConfig

from moai.assets.host import resolve_host
from moai.assets.resolver import resolve
from moai.errors import AssetError, RecipeError, nearest
from moai.model.config import import_host
from moai.model.encoders.interpolation import interpolation_arguments
from moai.model.encoders.vision import VisionEncoder, build_vision
from moai.model.host.scratch import scratch_config
from moai.recipe.schema import Recipe
from moai.recipe.sections import EncoderVision

HOST_SHAPE = {"layers": 32, "width": 4096, "heads": 32, "kv": None, "ffn": 11008, "vocab": 32000, "context": 4096}
VISION_SHAPE = {"width": 1024, "layers": 24, "heads": 16, "ffn": 4096, "patch": 14}


def llama(shape: str) -> LlamaConfig:
    """A Llama of the shape ``"layers=32,width=4096,.."``, over the defaults of ``HOST_SHAPE``."""
    s = _shape(shape, HOST_SHAPE, "--host-shape")
    return LlamaConfig(
        num_hidden_layers=s["layers"], hidden_size=s["width"], num_attention_heads=s["heads"],
        num_key_value_heads=s["kv"] or s["heads"], intermediate_size=s["ffn"], vocab_size=s["vocab"],
        max_position_embeddings=s["context"],
    )  # fmt: skip


def _shape(text: str, known: dict[str, int | None], option: str) -> dict[str, int | None]:
    """``"layers=32,width=4096"`` over the defaults in ``known``."""
    made = dict(known)
    for item in filter(None, (item.strip() for item in text.split(","))):
        name, _, value = item.partition("=")
        if name not in known:
            raise RecipeError(f"{option}: no '{name}' in a shape{nearest(name, known)}")
        if not value.isdigit() or int(value) < 1:
            raise RecipeError(f"{option}: '{item}' is no number of at least 1; write {name}=32")
        made[name] = int(value)
    if made["width"] % made["heads"] or made["heads"] % (made.get("kv") or made["heads"]):
        raise RecipeError(f"{option}: width must be a multiple of heads, and heads of kv")
    return made


def host_config_of(recipe: Recipe) -> PreTrainedConfig:
    """The configuration of the recipe's host.

    Raises:
        AssetError: it cannot be found.
    """
    if recipe.host.scratch is not None:
        return scratch_config(recipe.host.scratch)
    reference = recipe.host.reference
    try:
        folder = _config_file(reference, recipe.host.revision) or resolve_host(reference)
        import_host(PreTrainedConfig.get_config_dict(folder)[0].get("model_type"))
        return AutoConfig.from_pretrained(folder)
    except AssetError as error:
        shape = "; or describe the host with --host-shape layers=32,width=4096,heads=32"
        other = "" if recipe.vision.kind == "host" else shape
        raise AssetError(f"{error}{other}") from None


def _config_file(reference: str, revision: str | None) -> Path | None:
    """Where the configuration alone is; weights are not needed, so those of a hub id are not downloaded."""
    path = Path(reference).expanduser()
    if (path / "config.json").is_file():
        return path
    is_hub_id = not path.exists() and reference.count("/") == 1 and ":" not in reference
    return resolve(f"{reference}/config.json", revision) if is_hub_id else None


def encoder_of(encoder: EncoderVision, shape: str | None) -> VisionEncoder:
    """Build the vision encoder with random weights, or a CLIP of the shape ``"width=1024,layers=24,.."``.

    Raises:
        RecipeError: its shape is not known; AssetError: it cannot be found.
    """
    v = encoder
    if shape:
        s = _shape(shape, VISION_SHAPE, "--vision-shape")
        config = CLIPVisionConfig(
            hidden_size=s["width"], num_hidden_layers=s["layers"], num_attention_heads=s["heads"],
            intermediate_size=s["ffn"], patch_size=s["patch"], image_size=v.image_size,
        )  # fmt: skip
        return VisionEncoder(AutoModel.from_config(config), config.hidden_size, drop_first=1)
    if v.architecture is not None:
        return build_vision(
            architecture=v.architecture,
            reference=None,
            layer=v.layer,
            drop_first=v.drop_first,
            image_size=v.image_size,
        )
    if v.reference is None:
        raise RecipeError("plan cannot tell the shape of this vision encoder; describe it with --vision-shape")
    try:
        body = AutoModel.from_config(AutoConfig.from_pretrained(_config_file(v.reference, v.revision) or v.reference))
    except (AssetError, OSError) as error:
        raise AssetError(f"{error}; or describe the encoder with --vision-shape width=1024,layers=24") from None
    body = getattr(body, "vision_model", body)
    more = interpolation_arguments(body, v.image_size)
    return VisionEncoder(body, body.config.hidden_size, v.layer, v.drop_first, more)
