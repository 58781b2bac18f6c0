"""Import a LLaVA checkpoint: its language model, vision tower and projector become host, encoder and connector.

Knows: ``LlavaForConditionalGeneration`` of transformers, and run folders. Tensors are copied, never computed with. The
run folder refers to the two folders in it by their paths.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    AutoModelForCausalLM,
    AutoProcessor,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedConfig,
    PreTrainedTokenizerBase,
)

from moai.assets.host import resolve_host
from moai.errors import CheckpointError
from moai.model.config import MoaiConfig
from moai.model.host.loading import host_hashes
from moai.model.processor.chat_templates import chat_template
from moai.model.processor.processor import MoaiProcessor
from moai.model.run_folder import save_adapters

ADVICE = "give a folder of LlavaForConditionalGeneration, such as llava-hf/llava-1.5-7b-hf"


@dataclass(frozen=True)
class Imported:
    """Hold what an import made, with the parameters of each part."""

    folder: Path
    host: int
    vision: int
    connector: int
    image_tokens: int


def import_llava(checkpoint: str | Path, out: str | Path, *, revision: str | None = None) -> Imported:
    """Convert a LLaVA checkpoint into a run folder at ``out``, with ``out/host`` and ``out/vision`` in it.

    Args:
        checkpoint: a folder or hub id with safetensors and processor files.
        out: a folder that does not exist yet or is empty.
        revision: of a hub id.

    Raises:
        CheckpointError: another system's checkpoint, or a form of LLaVA that is not LLaVA-1.5's.
        AssetError: nothing there that can be loaded.
    """
    folder, out = resolve_host(str(checkpoint), revision), Path(out)
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty; name a new folder for the imported run")
    given = PreTrainedConfig.get_config_dict(folder)[0]
    check_checkpoint(given, str(checkpoint))
    processor = _processor(folder, str(checkpoint))
    model, loaded = LlavaForConditionalGeneration.from_pretrained(folder, dtype="auto", output_loading_info=True)
    if lacking := sorted(loaded["missing_keys"]):
        raise CheckpointError(f"{checkpoint} lacks '{lacking[0]}' ({len(lacking)} weights in all); {ADVICE}")
    tower, projector = model.model.vision_tower, model.model.multi_modal_projector
    host = language_model(model)
    host.save_pretrained(out / "host")
    processor.tokenizer.save_pretrained(out / "host")  # for recipes that begin from the host
    tower.save_pretrained(out / "vision")
    connector = {f"connector.{place}.{name}": value.detach().clone() for place, layer in ((0, projector.linear_1),
                 (2, projector.linear_2)) for name, value in layer.state_dict().items()}  # fmt: skip
    config = _config(model, out, _image_tokens(processor))
    save_adapters(config, connector, out)
    model.generation_config.save_pretrained(out)
    _run_processor(processor, config).save_pretrained(out)
    counts = [sum(p.numel() for p in part.parameters()) for part in (host, tower, projector)]
    return Imported(out, *counts, config.image_tokens)


def check_checkpoint(given: dict[str, Any], name: str) -> None:
    """Refuse, by its configuration, a checkpoint that is no LLaVA-1.5 of transformers.

    Raises:
        CheckpointError: names what it is, and what would do.
    """
    kind = given.get("model_type")
    if kind != "llava":
        raise CheckpointError(f"{name} is a checkpoint of {kind or 'an unknown type'}, not of llava; {ADVICE}")
    if not {"text_config", "vision_config"} <= set(given):
        raise CheckpointError(f"{name} is in the layout of LLaVA's own code, not of transformers; {ADVICE}")
    wanted = {"projector_hidden_act": "gelu", "multimodal_projector_bias": True}
    for key, value in wanted.items():
        if given.get(key, value) != value:
            raise CheckpointError(f"{name} has {key} {given[key]}, and LLaVA-1.5's connector has {value}; {ADVICE}")
    layer = given.get("vision_feature_layer", -2)
    if not isinstance(layer, int):
        raise CheckpointError(f"{name} joins the features of layers {layer}, and moai takes those of one; {ADVICE}")


def language_model(model: LlavaForConditionalGeneration) -> nn.Module:
    """Return a checkpoint's language model as the causal language model that it was before it got images."""
    config, inner, output = model.config.text_config, model.model.language_model, model.lm_head
    config.tie_word_embeddings = output.weight is inner.get_input_embeddings().weight
    with torch.device("meta"):
        host = AutoModelForCausalLM.from_config(config, dtype=output.weight.dtype)
    setattr(host, host.base_model_prefix, inner)
    host.set_output_embeddings(output)
    host.generation_config = model.generation_config
    return host


def _config(model: LlavaForConditionalGeneration, out: Path, image_tokens: int) -> MoaiConfig:
    given = model.config
    host, vision = (str((out / name).absolute()) for name in ("host", "vision"))
    return MoaiConfig(
        text_config=given.text_config,
        host={"reference": host, "revision": None, "dtype": str(model.dtype).removeprefix("torch."),
              "sha256": host_hashes(host, None)},
        vision={"kind": "encoder", "architecture": None, "reference": vision, "revision": None,
                "layer": given.vision_feature_layer,
                "drop_first": int(given.vision_feature_select_strategy == "default")},
        connector={"kind": "mlp", "options": {}},
        compressor={},
        mixer={"layers": []},
        image_token_id=given.image_token_id,
        image_tokens=image_tokens,
        architectures=["MoaiForConditionalGeneration"],
    )  # fmt: skip


def _processor(folder: Path, name: str) -> LlavaProcessor:
    try:
        found = AutoProcessor.from_pretrained(folder)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{name} has no processor ({error}); copy its processor and tokenizer files") from None
    if not isinstance(found, LlavaProcessor) or found.patch_size is None:
        raise CheckpointError(f"the processor of {name} ({type(found).__name__}) is not LLaVA-1.5's; {ADVICE}")
    return found


def _image_tokens(processor: LlavaProcessor) -> int:
    size = processor.image_processor.crop_size
    blank = {"pixel_values": torch.zeros(1, 3, size["height"], size["width"])}
    return processor.replace_image_token(blank, 0).count(processor.image_token)


def _run_processor(own: LlavaProcessor, config: MoaiConfig) -> MoaiProcessor:
    tokenizer = own.tokenizer
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return MoaiProcessor(
        image_processor=own.image_processor,
        tokenizer=tokenizer,
        chat_template=_template(own, tokenizer),
        image_token=own.image_token,
        image_tokens=config.image_tokens,
        panoptic_map=False,
        max_length=getattr(config.get_text_config(), "max_position_embeddings", None),
    )


def _template(own: LlavaProcessor, tokenizer: PreTrainedTokenizerBase) -> str:
    """The checkpoint's own template, or LLaVA-1.5's; a run's template begins the prompt as its tokenizer does."""
    template = own.chat_template["default"] if isinstance(own.chat_template, dict) else own.chat_template
    if not template:
        return chat_template("vicuna", None, own.image_token)
    begins = tokenizer.bos_token is not None and tokenizer("a")["input_ids"][:1] == [tokenizer.bos_token_id]
    return f"{{{{- bos_token -}}}}{template}" if begins and "bos_token" not in template else template
