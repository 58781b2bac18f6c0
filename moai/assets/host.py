"""Resolve a reference to a language model to a Hugging Face folder, GGUF files too.

Knows: that transformers dequantises GGUF slowly (10 to 20 s for 135 M parameters, against about 1 s for safetensors),
so it is done once and the result is cached. The folder is keyed by the GGUF file's SHA-256.
"""

from __future__ import annotations

import importlib.util
import json
import struct
from pathlib import Path

from moai.assets.cache import cache_dir, is_whole, publish, status
from moai.assets.known_hashes import known_sha256
from moai.assets.resolver import WHEEL, is_local, resolve
from moai.errors import AssetError

# What the GGUF reader raises for a damaged file or an architecture it does not know
UNREADABLE = (ValueError, KeyError, IndexError, TypeError, OSError, RuntimeError, struct.error)
LAYOUT = "bfloat16-1"  # change it when the converted folder should be made anew


def resolve_host(reference: str | Path, revision: str | None = None) -> Path:
    """Return a folder with ``config.json``, ``*.safetensors`` and tokenizer files.

    Args:
        reference: anything that ``resolve`` takes. A ``.gguf`` file, or a folder whose only model is one, is
            dequantised to bfloat16 once and cached.
        revision: branch, tag or commit of a hub id.

    Raises:
        AssetError: nothing there that can be loaded, and what would be.
    """
    path = resolve(reference, revision)
    if path.is_file() and path.suffix.lower() == ".gguf":
        return _from_gguf(path)
    if path.is_file():
        raise AssetError(f"'{path}' is no language model; give a .gguf file or a folder with config.json")
    if (path / "config.json").is_file() and any(path.glob("*.safetensors")):
        _check_shards(path)
        return path
    ggufs = sorted(path.glob("*.gguf"))
    if len(ggufs) == 1:
        return _from_gguf(ggufs[0])
    if ggufs:
        raise AssetError(f"{path} holds {len(ggufs)} .gguf files; name one of them, for instance {ggufs[0]}")
    raise AssetError(
        f"{path} holds no config.json with *.safetensors beside it and no .gguf file; "
        "pickled weights (*.bin, *.pt) are not loaded: convert them with save_pretrained"
    )


def has_configuration(reference: str | Path, revision: str | None = None) -> bool:
    """Return whether a language model's configuration can be read now: weights are neither downloaded nor converted.

    A hub id counts, whose ``config.json`` is a file of its own.

    Raises:
        AssetError: a reference that names nothing there is.
    """
    if not is_local(reference, revision):
        text = str(reference)
        return text.count("/") == 1 and not text.startswith((WHEEL, ".", "~", "/"))
    path = resolve(reference, revision)
    if path.is_dir() and (path / "config.json").is_file():
        return True
    ggufs = [path] if path.is_file() else sorted(path.glob("*.gguf"))
    return len(ggufs) == 1 and is_whole(*_converted(ggufs[0]))


def _check_shards(folder: Path) -> None:
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return
    try:
        shards = set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise AssetError(f"{index} is damaged ({error}); download the model again") from error
    for shard in sorted(shards):
        if not (folder / shard).is_file():
            raise AssetError(f"{folder} lacks '{shard}', one of {len(shards)} shards; download the model again")


def _from_gguf(gguf: Path) -> Path:
    return publish(*_converted(gguf), lambda content: _convert(gguf, content))


def _converted(gguf: Path) -> tuple[Path, str]:
    """Where the converted model lies, and what it is made from."""
    digest = known_sha256(gguf)
    return cache_dir() / "hosts" / f"{gguf.stem}-{digest[:12]}", f"{digest} {LAYOUT}"


def _convert(gguf: Path, folder: Path) -> None:
    for module in ("gguf", "accelerate"):
        if importlib.util.find_spec(module) is None:
            raise AssetError(f"converting {gguf.name} needs the package '{module}'; install it: pip install {module}")
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

    with status(f"converting {gguf.name} to safetensors, once"):
        where = {"pretrained_model_name_or_path": str(gguf.parent), "gguf_file": gguf.name}
        try:
            # dequantize=True drops the quantizer, without which the model can be neither saved nor trained around
            model = AutoModelForCausalLM.from_pretrained(**where, quantization_config=GgufConfig(dequantize=True))
            tokenizer = AutoTokenizer.from_pretrained(**where)
        except UNREADABLE as error:
            raise AssetError(f"transformers cannot read {gguf}: {error}; give a folder with safetensors") from error
        model.to(torch.bfloat16).save_pretrained(folder)
        tokenizer.save_pretrained(folder)
