"""Import the published checkpoint: its state dict becomes a host folder, an encoder folder and a run folder.

Knows: the published layout (InternLM2 with PLoRA, CLIP, MoAI's modules) and our own. Tensors are copied, never
computed with, so that what was published is what runs. The run folder refers to the two others by their paths.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import CLIPVisionConfig, CLIPVisionModel, GenerationConfig

from moai import MoaiConfig
from moai.errors import CheckpointError
from moai.plugin_api import host_hashes, save_adapters
from moai_official.config import PLoRALlamaConfig
from moai_official.host import PLoRALlamaForCausalLM
from moai_official.names import VISION, Layout, adapter_names, check_names, host_names
from moai_official.processor import find_tokenizer, save_processor
from moai_official.reader import Checkpoint

SHARD = 4 * 2**30  # bytes
HEAD = 64  # width of a CLIP encoder's heads, whatever its size


@dataclass(frozen=True)
class Imported:
    """Hold what an import made; parameters are counted as the run stores them."""

    folder: Path
    host: int
    plora: int
    vision: int
    connector: int
    compressor: int
    mixers: int
    layers: tuple[int, ...]  # with a mixer
    dropped_rows: int  # word embeddings beyond the output's rows, which no token that is generated has
    processor: bool


def import_official(
    checkpoint: str | Path,
    out: str | Path,
    *,
    config: str | Path | None = None,
    tokenizer: str | Path | None = None,
    experts: Sequence[str] = (),
) -> Imported:
    """Convert a published checkpoint into a run folder at ``out``, with ``out/host`` and ``out/vision`` beside it.

    Args:
        checkpoint: a folder with shards, or one file; safetensors or torch.
        out: a folder that does not exist yet or is empty.
        config: the decoder's ``config.json``; the one beside the weights when left out.
        tokenizer: a folder with ``tokenizer.json``; the checkpoint's own when left out and there is one. Without any,
            the run holds no processor.
        experts: names of the experts that perceive images.

    Raises:
        CheckpointError: files that cannot be read; missing or unknown names, all listed; shapes that do not fit.
    """
    state, out = Checkpoint(checkpoint), Path(out)
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty; name a new folder for the imported run")
    text = host_config(state.configuration(config), state)
    levels = {name.split(".")[2] for name in state if name.startswith("moai_compressor.layers.")}
    layout = Layout(text.num_hidden_layers, text.attention_bias, len(levels) or 4)
    if not layout.mixed:
        raise CheckpointError(f"a decoder of {layout.layers} layers has no mixer: they stand in every 8th layer")
    encoder = {name: (name,) for name in state if name.startswith(VISION)}
    expected = {**host_names(layout), **{name: (to,) for name, to in adapter_names(layout).items()}, **encoder}
    check_names(state, expected, str(checkpoint))
    found = find_tokenizer(state.path, tokenizer, text.vocab_size)
    out.mkdir(parents=True, exist_ok=True)
    vision = _save_vision({name: state[name] for name in encoder}, out / "vision")
    host = _save_host(text, host_names(layout), state, out / "host")
    adapters = {to: state[name] for name, to in adapter_names(layout).items()}
    _save_run(out, text, vision, layout, adapters, found)
    if found is not None:
        save_processor(out, found, vision.image_size, _patches(vision), list(experts), text.max_position_embeddings)
    counts = {part: _count(adapters, part) for part in ("connector", "compressor", "mixers")}
    return Imported(
        folder=out, **host, **counts, vision=sum(state[name].numel() for name in encoder),
        layers=tuple(layout.mixed), processor=found is not None,
        dropped_rows=len(state["model.tok_embeddings.weight"]) - text.vocab_size,
    )  # fmt: skip


def host_config(given: dict[str, Any], state: Checkpoint) -> PLoRALlamaConfig:
    """Convert InternLM2's configuration to ours; sizes come from the tensors."""
    try:
        heads, layers = given["num_attention_heads"], given["num_hidden_layers"]
        width, inner = given["hidden_size"], given["intermediate_size"]
    except KeyError as error:
        raise CheckpointError(f"the checkpoint's config.json lacks {error}; give InternLM2's with --config") from None
    output, down = state.get("output.weight"), state.get("model.layers.0.attention.wo.Plora_A.weight")
    if output is None or down is None:
        lacking = "output.weight" if output is None else "model.layers.0.attention.wo.Plora_A.weight"
        raise CheckpointError(f"{state.path} is not the published checkpoint: it holds no '{lacking}'")
    rope = {"rope_type": "default", "rope_theta": float(given.get("rope_theta", 10000))}
    scaling = given.get("rope_scaling")
    if scaling:
        rope.update(rope_type=scaling.get("type", scaling.get("rope_type")), factor=float(scaling["factor"]))
    return PLoRALlamaConfig(
        architectures=[PLoRALlamaForCausalLM.__name__],
        vocab_size=len(output), hidden_size=width, intermediate_size=inner,
        num_hidden_layers=layers, num_attention_heads=heads,
        num_key_value_heads=given.get("num_key_value_heads") or heads,
        hidden_act=given.get("hidden_act", "silu"), rms_norm_eps=given.get("rms_norm_eps", 1e-6),
        max_position_embeddings=given.get("max_position_embeddings", 2048), rope_parameters=rope,
        attention_bias=bool(given.get("bias", True)), mlp_bias=False, tie_word_embeddings=False,
        bos_token_id=given.get("bos_token_id", 1), eos_token_id=given.get("eos_token_id", 2),
        pad_token_id=None if given.get("pad_token_id", 2) == -100 else given.get("pad_token_id", 2),
        plora_rank=len(down), plora_alpha=float(len(down)), dtype=str(output.dtype).removeprefix("torch."),
    )  # fmt: skip


def split_fused(fused: Tensor, config: PLoRALlamaConfig, name: str) -> list[Tensor]:
    """Split queries, keys and values of a fused layer, whose rows lie by key-value group: its queries, a key, a value.

    Raises:
        CheckpointError: the rows are not those of the configuration's heads.
    """
    groups, width = config.num_key_value_heads, config.hidden_size // config.num_attention_heads
    share = config.num_attention_heads // groups
    if len(fused) != groups * (share + 2) * width:
        raise CheckpointError(
            f"'{name}' has {len(fused)} rows, and {config.num_attention_heads} heads in {groups} groups need "
            f"{groups * (share + 2) * width}; give the checkpoint's own config.json with --config"
        )
    grouped = fused.unflatten(0, (groups, share + 2, width))  # (G, g + 2, d, ..)
    parts = (grouped[:, :share], grouped[:, share : share + 1], grouped[:, share + 1 :])
    return [part.flatten(0, 2).contiguous() for part in parts]


def _host_tensors(config, names: dict[str, tuple[str, ...]], state: Checkpoint) -> Iterator[tuple[str, Tensor]]:
    for name, ours in names.items():
        tensor = state[name]
        if name == "model.tok_embeddings.weight":
            if len(tensor) < config.vocab_size:
                raise CheckpointError(f"'{name}' has {len(tensor)} rows and the output {config.vocab_size}")
            tensor = tensor[: config.vocab_size]  # the placeholder's row: image tokens replace it, it is never read
        parts = [tensor] if len(ours) == 1 else split_fused(tensor, config, name)
        yield from zip(ours, parts, strict=True)


def _save_host(config, names, state: Checkpoint, folder: Path) -> dict[str, int]:
    """Write the host's folder shard by shard, so that no more than one shard is in memory."""
    folder.mkdir()
    config.save_pretrained(folder)
    GenerationConfig(bos_token_id=config.bos_token_id, eos_token_id=config.eos_token_id).save_pretrained(folder)
    shards: list[dict[str, Tensor]] = [{}]
    files: dict[str, int] = {}
    counts = {"host": 0, "plora": 0}
    size = written = 0
    for name, tensor in _host_tensors(config, names, state):
        if size and size + tensor.nbytes > SHARD:
            save_file(shards.pop(), folder / f"part-{written}", metadata={"format": "pt"})
            shards, size, written = [{}], 0, written + 1
        shards[-1][name] = tensor.clone()  # the file may be mapped, and a part of a tensor must stand alone
        files[name], size = written, size + tensor.nbytes
        counts["plora" if name.startswith("plora.") else "host"] += tensor.numel()
    save_file(shards.pop(), folder / f"part-{written}", metadata={"format": "pt"})
    _name_shards(folder, files, written + 1)
    return counts


def _name_shards(folder: Path, files: dict[str, int], count: int) -> None:
    if count == 1:
        (folder / "part-0").rename(folder / "model.safetensors")
        return
    names = [f"model-{number + 1:05}-of-{count:05}.safetensors" for number in range(count)]
    for number, name in enumerate(names):
        (folder / f"part-{number}").rename(folder / name)
    total = sum((folder / name).stat().st_size for name in names)
    index = {"metadata": {"total_size": total}, "weight_map": {name: names[part] for name, part in files.items()}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2) + "\n")


def _save_vision(state: dict[str, Tensor], folder: Path) -> CLIPVisionConfig:
    """Write the encoder as transformers' ``CLIPVisionModel``; its shape is read off the tensors."""
    state = {name.removeprefix(VISION): tensor for name, tensor in state.items()}
    state = {name: tensor for name, tensor in state.items() if not name.endswith("position_ids")}
    try:
        patches, places = state["embeddings.patch_embedding.weight"], state["embeddings.position_embedding.weight"]
        inner = len(state["encoder.layers.0.mlp.fc1.weight"])
    except KeyError as error:
        raise CheckpointError(f"the checkpoint's vision encoder is no CLIP: it lacks {VISION}{error.args[0]}") from None
    config = CLIPVisionConfig(
        hidden_size=len(patches), intermediate_size=inner, patch_size=patches.shape[-1],
        image_size=round((len(places) - 1) ** 0.5) * patches.shape[-1],
        num_hidden_layers=1 + max(int(n.split(".")[2]) for n in state if n.startswith("encoder.layers.")),
        num_attention_heads=max(1, len(patches) // HEAD),
    )  # fmt: skip
    with torch.device("meta"):
        model = CLIPVisionModel(config)
    own = {name.removeprefix("vision_model."): name for name in model.state_dict()}
    check_names(state, own, "the checkpoint's vision encoder")
    model.load_state_dict({own[name]: tensor.float() for name, tensor in state.items()}, assign=True)
    model.save_pretrained(folder)
    return config


def _patches(vision: CLIPVisionConfig) -> int:
    return (vision.image_size // vision.patch_size) ** 2


def _save_run(out: Path, text, vision, layout: Layout, adapters: dict[str, Tensor], found) -> None:
    width, rank = text.hidden_size, len(adapters[f"mixers.{layout.mixed[0]}.attention.image_aux.query.down.weight"])
    inner = len(adapters["compressor.layers.0.query.weight"])
    config = MoaiConfig(
        text_config=text,
        host={"reference": str((out / "host").absolute()), "revision": None, "dtype": text.to_dict()["dtype"],
              "sha256": host_hashes(str(out / "host"), None)},
        vision={"kind": "encoder", "architecture": None, "reference": str((out / "vision").absolute()),
                "revision": None, "layer": -1, "drop_first": 1},
        connector={"kind": "mlp", "options": {}},
        compressor={"latents": len(adapters["compressor.latents"]), "depth": layout.depth, "heads": 4,
                    "head_width": inner // 4,
                    "feedforward": len(adapters["compressor.layers.0.feedforward.1.weight"]) // width},
        mixer={"layers": layout.mixed, "rank": rank, "heads": 4},
        arithmetic="published",
        image_token_id=text.vocab_size if found is None else found.image_token_id,
        image_tokens=_patches(vision),
        architectures=["MoaiForConditionalGeneration"],
    )  # fmt: skip
    save_adapters(config, {name: tensor.clone() for name, tensor in adapters.items()}, out)


def _count(tensors: dict[str, Tensor], part: str) -> int:
    return sum(tensor.numel() for name, tensor in tensors.items() if name.startswith(f"{part}."))
