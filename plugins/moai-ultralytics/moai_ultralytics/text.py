"""Embed names by CLIP's text model, once per model and vocabulary; the embeddings are cached on disk.

Knows: transformers' CLIP, which gives the vectors that YOLO-World was trained with; the package that Ultralytics
would install from git for the same purpose is not needed.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from moai.errors import AssetError
from moai.plugin_api import cache_dir, identify, publish, resolve

BATCH = 128  # names at a time
FORMAT = "moai-ultralytics text 1"


def text_features(names: Sequence[str], reference: str) -> np.ndarray:
    """Embed names as they stand, without a sentence around them, as YOLO-World does.

    Args:
        names: of any number.
        reference: folder or hub id of a CLIP model with its tokenizer.

    Returns:
        ``(N, D)`` float32, each row of length one.

    Raises:
        AssetError: the model cannot be found, or is no CLIP text model.
    """
    model = resolve(reference)
    parts = [FORMAT, identify(model), list(names)]
    key = hashlib.sha256(json.dumps(parts).encode()).hexdigest()
    folder = cache_dir() / "text-features" / key[:32]
    publish(folder, key, lambda content: np.save(content / "features.npy", _embed(names, model)))
    return np.load(folder / "features.npy", allow_pickle=False)


def _embed(names: Sequence[str], folder: Path) -> np.ndarray:
    import torch

    tokenizer, model = _open(folder)
    rows = []
    with torch.inference_mode():
        for start in range(0, len(names), BATCH):
            batch = list(names[start : start + BATCH])
            tokens = tokenizer(batch, padding=True, truncation=True, max_length=_longest(model), return_tensors="pt")
            rows.append(torch.nn.functional.normalize(model(**tokens).text_embeds.float(), dim=-1))  # (batch, D)
    return torch.cat(rows).numpy()


def _open(folder: Path):
    from transformers import AutoTokenizer, CLIPTextModelWithProjection

    wanted = "name a folder or hub id with CLIP's safetensors, configuration and tokenizer in the option text_model"
    try:
        with _quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder)
            load = CLIPTextModelWithProjection.from_pretrained
            model, info = load(folder, use_safetensors=True, output_loading_info=True)
    except (OSError, ValueError, KeyError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise AssetError(f"{folder} is no CLIP text model ({reason}); {wanted}") from error
    if info["missing_keys"]:
        raise AssetError(f"{folder} lacks weights such as '{sorted(info['missing_keys'])[0]}'; {wanted}")
    return tokenizer, model.eval()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress the progress bar, and the list of the weights of CLIP's other half."""
    from transformers.utils import logging

    bars, level = logging.is_progress_bar_enabled(), logging.get_verbosity()
    logging.disable_progress_bar()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()


def _longest(model) -> int:
    return model.config.max_position_embeddings
