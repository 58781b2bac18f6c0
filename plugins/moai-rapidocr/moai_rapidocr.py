"""Read text in pictures by RapidOCR 3.10 with the PP-OCRv6 weights of its wheel.

Knows: how to keep RapidOCR in its place. Every model is named by path, so that RapidOCR has nothing to download; it
prints nothing, uses the threads it is given, and OpenCV's own thread count is as before afterwards. What it reads is
untrusted text: it is passed on as it stands, and whoever puts it into a prompt must treat it so.
"""

from __future__ import annotations

import importlib.util
import os
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field

import moai
from moai import Expert, Options
from moai.errors import AssetError
from moai.plugin_api import identify, reading_order, resolve
from moai.types import MAX_TEXT, Perception, TextLine

BUNDLED = {
    "Det": "PP-OCRv6_det_small.onnx",
    "Cls": "ch_ppocr_mobile_v2.0_cls_mobile.onnx",
    "Rec": "PP-OCRv6_rec_small.onnx",
}
LOWEST = 8  # pixels of the shorter side; no line of text is legible in less
SMALLEST = 32  # pixels of a side, as the detector gets it
LONGEST = 8  # times as long as wide; longer pictures are padded to half of that, as RapidOCR does with wide ones


class RapidOCR(Expert):
    """Read text lines in reading order, each with polygon; `score` is the mean confidence per character."""

    name = "rapidocr"
    role = "ocr"
    version = "1"
    modules = ("rapidocr", "onnxruntime")
    install = "pip install moai-rapidocr"
    licence = "Apache-2.0 (RapidOCR, and PaddleOCR's weights in its wheel)"
    weights = "in the wheel of rapidocr"
    memory = 600_000_000

    class Options(Options):
        detector: str = ""
        """ONNX file that finds lines (a path or a hub file `owner/name/file.onnx`); empty: RapidOCR's own."""
        recognizer: str = ""
        """ONNX file that reads them, exported by RapidOCR for another script; empty: RapidOCR's own."""
        min_score: float = Field(0.5, ge=0, le=1)
        """Lines read with less confidence are left out."""
        upside_down: bool = True
        """Also read lines that stand on their heads; costs a few milliseconds per line."""
        max_side: int = Field(2000, ge=64)
        """Larger pictures are shrunk to this."""
        min_side: int = Field(736, ge=32, le=2000)
        """To find text, smaller pictures are enlarged until their shorter side has so many pixels; less is faster."""
        threads: int = Field(1, ge=1)
        """Threads while reading; more than the machine has cores are not used."""

    _engine: Any = None

    def weights_id(self) -> str:
        """Identify each model by its SHA-256, so that another release of RapidOCR or another file is perceived anew."""
        return "+".join(identify(path) for path in self._models(False).values())

    def load(self, device: str = "cpu") -> None:
        """Build the three models; RapidOCR runs on the CPU whatever ``device`` is.

        Raises:
            AssetError: a model is missing, cannot be read, or is no recogniser that carries its list of characters.
        """
        models = self._models(True)
        threads = min(self.options.threads, os.cpu_count() or 1)  # ONNX Runtime takes all cores when asked for more
        settings: dict[str, Any] = {f"{part}.model_path": str(path) for part, path in models.items()}
        settings |= {"Global.log_level": "critical", "Global.text_score": 0.0, "Global.use_preprocess_img": False}
        settings |= {"Det.limit_side_len": self.options.min_side}
        settings |= {f"EngineConfig.onnxruntime.{kind}_op_num_threads": threads for kind in ("intra", "inter")}
        with _contained(threads):
            import rapidocr

            if self.options.recognizer:
                _check_recognizer(models["Rec"])
            engine = rapidocr.RapidOCR(params=settings)
            blank = np.full((SMALLEST, SMALLEST * 4, 3), 255, dtype=np.uint8)
            try:  # RapidOCR builds a model when it is first used; a model that is broken belongs to loading
                engine(blank, use_det=True, use_cls=False, use_rec=False)
                engine(blank, use_det=False, use_cls=self.options.upside_down, use_rec=True)
            except Exception as error:  # a file can be wrong in many ways, and ONNX Runtime's classes are not public
                reason = " ".join(str(error).split()).rpartition("onnxruntime_pybind11_state.")[2]
                files = ", ".join(map(str, models.values()))
                raise AssetError(f"RapidOCR cannot use {files}: {reason[:200]}") from error
        self._engine = engine

    def unload(self) -> None:
        """Drop the models."""
        self._engine = None

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Read each picture on its own."""
        return [self._read(image) for image in images]

    def to_perception(self, raw: Sequence[tuple], size: tuple[int, int]) -> Perception:
        """Convert RapidOCR's ``[(four (x, y) corners in pixels, text, score), ...]`` to text lines; a pure function."""
        lines = []
        for corners, text, score in raw:
            text, score = text.strip()[:MAX_TEXT], min(max(float(score), 0.0), 1.0)
            if text and score >= self.options.min_score:
                polygon = tuple((_unit(x / size[0]), _unit(y / size[1])) for x, y in corners)
                lines.append(TextLine(text, round(score, 4), polygon))
        return Perception(texts=tuple(reading_order(lines)))

    def _read(self, image: Image.Image) -> Perception:
        if min(image.size) < LOWEST:
            return Perception()
        pixels, size = fit(image, self.options.max_side)
        with _contained(self.options.threads):
            read = self._engine(pixels, use_det=True, use_cls=self.options.upside_down, use_rec=True)
        if read.boxes is None or getattr(read, "txts", None) is None:  # nothing found, or nothing of it legible
            return Perception()
        return self.to_perception(list(zip(read.boxes, read.txts, read.scores, strict=True)), size)

    def _models(self, fetch: bool) -> dict[str, Path | str]:
        """Find the ONNX file of each part; those named in the options are downloaded only when ``fetch``."""
        folder = _bundled_folder()
        models: dict[str, Path | str] = {part: folder / name for part, name in BUNDLED.items()}
        for part, reference in (("Det", self.options.detector), ("Rec", self.options.recognizer)):
            if reference:
                models[part] = resolve(reference) if fetch else reference
        for part, path in models.items():
            if isinstance(path, Path) and not path.is_file():
                raise AssetError(f"{path} is not a file; install rapidocr 3.10 again, or name an ONNX file for {part}")
        return models


def fit(image: Image.Image, max_side: int) -> tuple[np.ndarray, tuple[float, float]]:
    """Shrink and pad a picture to what RapidOCR accepts: slivers make it fail, or ask for gigabytes.

    Returns:
        ``(H, W, 3)`` uint8 pixels in RapidOCR's order, blue first, and the width and height that the picture itself
        takes in them (padding, black as RapidOCR's own, lies to the right and below).
    """
    picture = image.convert("RGB")
    if max(picture.size) > max_side:
        scale = max_side / max(picture.size)
        picture = picture.resize([max(round(side * scale), 1) for side in picture.size], Image.Resampling.LANCZOS)
    longest = max(picture.size)
    least = longest * 2 // LONGEST if longest > LONGEST * min(picture.size) else SMALLEST
    least = max(least, SMALLEST)
    right, below = (max(least - side, 0) for side in picture.size)
    pixels = np.pad(np.asarray(picture)[:, :, ::-1], ((0, below), (0, right), (0, 0)))
    return pixels, picture.size


def _bundled_folder() -> Path:
    found = importlib.util.find_spec("rapidocr")
    if found is None or not found.submodule_search_locations:
        raise AssetError("rapidocr is not installed; pip install moai-rapidocr")
    return Path(found.submodule_search_locations[0]) / "models"


def _check_recognizer(path: Path | str) -> None:
    """Check that the file lists its characters; without the list RapidOCR would download one, perhaps the wrong one."""
    import onnxruntime

    try:
        session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    except Exception as error:  # a file can be wrong in many ways, and these classes are not public
        raise AssetError(f"{path} is not a readable ONNX file; export or download it again") from error
    if "character" not in session.get_modelmeta().custom_metadata_map:
        raise AssetError(f"{path} carries no list of characters; use a recogniser exported by RapidOCR")


def _unit(value: float) -> float:
    return round(min(max(float(value), 0.0), 1.0), 4)


@contextmanager
def _contained(threads: int) -> Iterator[None]:
    """Give OpenCV as many threads as the models have, contain warnings, and undo both."""
    import cv2

    before = cv2.getNumThreads()
    cv2.setNumThreads(threads)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        cv2.setNumThreads(before)


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class; RapidOCR and ONNX Runtime are imported in `load`."""
    register(RapidOCR)
