"""Run folders: only what was trained, plus the names and hashes of everything that was not.

Knows: files. ``moai.safetensors`` holds our own parts, and what trained of the host and the encoder; ``config.json``
says where host and vision encoder come from and what their files hash to; ``manifest.json`` holds the hashes of the
folder's own files.
"""

from __future__ import annotations

import json
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn
from transformers import GenerationConfig

from moai.assets.hashes import sha256_file, verify
from moai.assets.known_hashes import known_sha256
from moai.assets.replacing import replacing
from moai.assets.resolver import resolve
from moai.compat import attention_implementation
from moai.dependencies import warn_of_newer_versions
from moai.errors import CheckpointError
from moai.model.config import MoaiConfig
from moai.model.encoders.vision import build_vision, vision_arguments
from moai.model.host.loading import check_frozen, host_hashes, load_host
from moai.model.host.scratch import empty_host
from moai.model.parts import saved_parameters
from moai.model.run_format import check_format

__all__ = [
    "host_hashes",
    "load_host",
    "load_run",
    "save_adapters",
    "save_run",
    "save_tensors",
    "write_manifest",
]
WEIGHTS = "moai.safetensors"
VISION = "vision.safetensors"  # only of an encoder with random weights, which no reference names
MANIFEST = "manifest.json"
HOST_PROCESSOR = "host_processor"  # a folder: the processor of a host whose own vision is used, as it saves itself
OWN_FILES = (
    "config.json", "generation_config.json", WEIGHTS, "processor_config.json", "preprocessor_config.json",
    VISION, "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "chat_template.jinja",
)  # fmt: skip
LOADING_INFO = ("missing_keys", "unexpected_keys", "mismatched_keys", "error_msgs")  # of output_loading_info
# What the Auto classes and pipelines pass along, and what means nothing here.
IGNORED = {"_from_auto", "adapter_kwargs", "trust_remote_code", "subfolder", "_commit_hash", "local_files_only",
           "cache_dir", "force_download", "token", "proxies", "use_safetensors", "low_cpu_mem_usage"}  # fmt: skip


def save_run(model, folder: str | Path) -> None:
    """Write configuration, weights and manifest into ``folder``; each file is replaced in one step."""
    folder = Path(folder)
    if not (model.config.host or {}).get("reference"):
        raise CheckpointError("the host has no reference to be found by again; pass reference= where the model is made")
    folder.mkdir(parents=True, exist_ok=True)
    model.config.architectures = [type(model).__name__]
    model.config.host = {**(model.config.host or {}), "attention": attention_implementation(model.host.config)}
    if model.generation_config is not None:
        model.generation_config.save_pretrained(folder)
    if model.config.vision["kind"] == "encoder" and model.config.vision.get("reference") is None:
        save_tensors(model.images.vision.body.state_dict(), folder / VISION)
    save_adapters(model.config, {name: p.detach() for name, p in saved_parameters(model).items()}, folder)


def save_adapters(config: MoaiConfig, weights: dict[str, torch.Tensor], folder: str | Path) -> None:
    """Write the configuration, the weights and the manifest of all that the folder then holds.

    Args:
        config: of the model that the weights are of.
        weights: name -> tensor, as ``saved_parameters`` of that model names them.
        folder: it has to exist.
    """
    folder = Path(folder)
    config.save_pretrained(folder)
    save_tensors(weights, folder / WEIGHTS)
    write_manifest(folder)


def save_tensors(tensors: dict[str, torch.Tensor], path: Path) -> None:
    """Write a safetensors file in one step."""
    with replacing(path) as part:
        save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, part, metadata={"format": "pt"})
        part.chmod(0o644)  # safetensors makes files that only their owner can read


def write_manifest(folder: str | Path) -> None:
    """Hash the run folder's own files into ``manifest.json``."""
    folder = Path(folder)
    inside = [path.relative_to(folder).as_posix() for path in sorted((folder / HOST_PROCESSOR).rglob("*"))]
    hashes = {name: sha256_file(folder / name) for name in (*OWN_FILES, *inside) if (folder / name).is_file()}
    with replacing(folder / MANIFEST) as part:
        part.write_text(json.dumps(hashes, indent=2) + "\n")


def check_manifest(folder: str | Path) -> None:
    """Verify the run folder's own files.

    Raises:
        CheckpointError: the manifest or a file is missing, or a file was altered after it was saved.
    """
    path = Path(folder) / MANIFEST
    if not path.is_file():
        raise CheckpointError(f"{folder} has no {MANIFEST}; it is no finished run: train it, or copy the whole folder")
    try:
        hashes = json.loads(path.read_text())
    except json.JSONDecodeError:
        raise CheckpointError(f"{path} is damaged; copy the run folder again, or save the model anew") from None
    for name in ("config.json", WEIGHTS):
        if name not in hashes:
            raise CheckpointError(f"{path} does not list {name}; save the model anew")
    verify(folder, hashes, known_sha256)


def load_run(cls, folder, config=None, *, dtype=None, torch_dtype=None, device_map=None, revision=None, **kwargs):
    """Load a run folder into a model of class ``cls``; see ``MoaiForConditionalGeneration.from_pretrained``."""
    informs = kwargs.pop("output_loading_info", False)
    warn_of_newer_versions()  # first: a newer library may be the reason for what fails below
    folder = resolve(str(folder), revision)
    check_manifest(folder)
    check_format(folder)
    config = config or cls.config_class.from_pretrained(folder)
    dtype = dtype or torch_dtype
    if dtype in (None, "auto"):
        dtype = config.host.get("dtype") or "float32"
    dtype = getattr(torch, dtype) if isinstance(dtype, str) else dtype
    host_kwargs = {name: value for name, value in kwargs.items() if name not in IGNORED}
    # The Auto classes put it into the configuration and do not hand it on.
    host_kwargs.setdefault("attn_implementation", attention_implementation(config) or config.host.get("attention"))
    check_frozen(config)
    if config.host.get("scratch"):
        host = empty_host(config.text_config, dtype, **host_kwargs)
    else:
        host = load_host(
            config.host["reference"],
            config.host.get("revision"),
            dtype,
            quantization=config.host.get("quantization"),
            own_vision=config.vision["kind"] == "host",
            **host_kwargs,
        )
    model = cls(config, host=host, vision=_saved_vision(config, folder), empty=True)
    _load_weights(model, folder / WEIGHTS)
    if (folder / "generation_config.json").is_file():
        model.generation_config = GenerationConfig.from_pretrained(folder)
    model.name_or_path = str(folder)
    model.eval()
    model = model if device_map is None else model.to(_one_device(device_map))
    # What does not fit is refused above, so there is never anything to list.
    return (model, {name: [] for name in LOADING_INFO}) if informs else model


def _saved_vision(config, folder: Path):
    """The encoder of a run that was built around random weights; ``None`` where a reference names it, or for none."""
    if config.vision["kind"] != "encoder" or config.vision.get("reference") is not None:
        return None
    if not (folder / VISION).is_file():
        raise CheckpointError(
            f"{folder} was trained around a vision encoder with random weights and lacks '{VISION}'; "
            "save the model anew, or train it with vision.reference set"
        )
    return build_vision(**{**vision_arguments(config), "reference": str(folder / VISION)})


def _load_weights(model, path: Path) -> None:
    try:
        state = load_file(path)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is damaged ({error}); copy the run folder again") from None
    own = saved_parameters(model)
    if own.keys() != state.keys():
        missing, extra = sorted(own.keys() - state.keys()), sorted(state.keys() - own.keys())
        raise CheckpointError(f"{path} does not fit its config.json: missing {missing[:3]}, unknown {extra[:3]}")
    places = {
        f"{prefix}.{leaf}": module
        for part, adapter in model.adapters().items()
        for prefix, module in adapter.named_modules(prefix=part)
        for leaf in module._parameters
    }
    for name, parameter in own.items():
        value = state[name]
        if parameter.shape != value.shape:
            raise CheckpointError(f"{path}: {name} is {tuple(value.shape)}, config.json says {tuple(parameter.shape)}")
        # Copied: the file is mapped and packed, so a tensor in it begins at any byte, where math libraries may
        # add up in another order than at the boundaries that torch gives its own. So a loaded model gives the bits that
        # the saved one gave. Not by setattr, which searches all that a module has, and takes longer than all else.
        copied = value.to(parameter.dtype, copy=True)
        if name in places:
            places[name]._parameters[name.rpartition(".")[2]] = nn.Parameter(copied, parameter.requires_grad)
        else:  # of host or encoder, where two modules may share one parameter
            parameter.data = copied


def _one_device(device_map):
    if isinstance(device_map, dict):
        if len(device_map) == 1:
            return next(iter(device_map.values()))
        raise CheckpointError("moai loads onto one device; pass device_map='cuda:0' or leave it out")
    if device_map == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device_map
