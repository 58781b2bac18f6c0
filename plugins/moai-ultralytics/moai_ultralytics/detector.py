"""Detect by YOLO-World or YOLOE: weights from a named file, pictures in, detections out.

Knows: Ultralytics' prediction and its results. How names reach the model differs and is left to the two experts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from PIL import Image
from pydantic import Field, field_validator

from moai import Expert, Options
from moai.errors import AssetError, ExpertError
from moai.plugin_api import identify, resolve
from moai.types import MAX_TEXT, Detection, Perception
from moai_ultralytics.containment import contained

LICENCE = "AGPL-3.0 (this plugin, Ultralytics, and, as Ultralytics states, its weights)"


class DetectorOptions(Options):
    """Hold the options of both experts."""

    weights: str = ""
    """The .pt file: a path, or a hub file `owner/name/file.pt`. None comes with the plugin, none is guessed."""
    vocabulary: tuple[str, ...] = ()
    """Names to detect, any number; empty: the names that the weights were saved with."""
    min_score: float = Field(0.25, ge=0, le=1)
    """Boxes with less confidence are left out."""
    max_overlap: float = Field(0.7, ge=0, le=1)
    """Of two boxes of one name whose intersection over union is larger, the weaker is left out."""
    max_detections: int = Field(100, ge=1, le=10_000)
    """At most so many boxes per picture, the strongest."""
    image_size: int = Field(640, ge=32, multiple_of=32)
    """Pixels of the longer side, as the model gets the picture."""
    threads: int = Field(1, ge=1)
    """torch threads while detecting on a CPU."""

    @field_validator("vocabulary")
    @classmethod
    def _are_names(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        names = tuple(dict.fromkeys(name.strip() for name in names))
        if any(not name or len(name) > MAX_TEXT for name in names):
            raise ValueError(f"names must have 1 to {MAX_TEXT} characters")
        return names


class Detector(Expert):
    """Detect by an open-vocabulary model of Ultralytics; boxes come with the strongest first."""

    role = "open_world"
    version = "1"
    modules = ("ultralytics", "torch", "transformers")
    install = "pip install moai-ultralytics"
    licence = LICENCE
    by_default = False  # nothing to run until weights are named
    weights = "none bundled; the option weights names a .pt file"
    Options = DetectorOptions

    _model: Any = None
    _device = "cpu"

    def weights_id(self) -> str:
        """Identify the weights by SHA-256, and whatever else the boxes depend on."""
        return "+".join(identify(reference) for reference in self.references() if reference)

    def references(self) -> tuple[str, ...]:
        """List the options that name files; empty ones count for nothing."""
        return (self.options.weights,)

    def load(self, device: str = "cpu") -> None:
        """Read the weights and set the vocabulary.

        Raises:
            AssetError: no weights named, or none that Ultralytics can load without running code from the file.
            ExpertError: weights of another kind, or a vocabulary that they cannot detect.
        """
        path = self._weights_path()
        with contained(self.options.threads) as ultralytics:
            try:
                model = self.open(ultralytics, path)
            except Exception as error:  # Ultralytics raises a dozen kinds for a file that it cannot use
                reason = " ".join(str(error).split())[:200]
                raise AssetError(f"{path} is no checkpoint that Ultralytics can load ({reason})") from error
            self.set_vocabulary(model, path)
        self._model, self._device = model, device

    def unload(self) -> None:
        """Drop the model."""
        self._model = None

    @abstractmethod
    def open(self, ultralytics: ModuleType, path: Path) -> Any:
        """Read the checkpoint."""

    @abstractmethod
    def set_vocabulary(self, model: Any, path: Path) -> None:
        """Make ``model`` detect the names in the options; ExpertError when it is another kind of model."""

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Perceive each picture by itself, so that none is padded to the shape of another."""
        with contained(self.options.threads):
            return [self._detect(image) for image in images]

    def to_perception(self, rows: np.ndarray, names: Mapping[int, str], size: tuple[int, int]) -> Perception:
        """Convert ``(N, 6)`` rows (x0, y0, x1, y1 in pixels, score, class) to detections in [0, 1]; a pure function."""
        detections = []
        for x0, y0, x1, y1, score, kind in np.asarray(rows, dtype=np.float64).tolist():
            label = str(names[int(kind)]).strip()[:MAX_TEXT]
            score = min(max(score, 0.0), 1.0)
            if label and score >= self.options.min_score:
                left, right = sorted((_unit(x0 / size[0]), _unit(x1 / size[0])))
                top, bottom = sorted((_unit(y0 / size[1]), _unit(y1 / size[1])))
                detections.append(Detection(label, round(score, 4), (left, top, right, bottom)))
        return Perception(detections=tuple(detections))

    def _detect(self, image: Image.Image) -> Perception:
        (result,) = self._model.predict(
            image.convert("RGB"),
            conf=self.options.min_score,
            iou=self.options.max_overlap,
            max_det=self.options.max_detections,
            imgsz=self.options.image_size,
            device=self._device,
            verbose=False,
            save=False,
        )
        return self.to_perception(result.boxes.data.cpu().numpy(), result.names, image.size)

    def _weights_path(self) -> Path:
        if not self.options.weights:
            raise AssetError(f"expert '{self.name}' has no weights of its own; name a .pt file in its option weights")
        path = resolve(self.options.weights)
        if path.suffix != ".pt" or not path.is_file():
            raise AssetError(f"the weights of expert '{self.name}' must be a .pt file, not {path}")
        return path


def require_kind(model: Any, kind: type, path: Path, other: str) -> None:
    """Raise ExpertError unless the checkpoint holds the kind of model that the expert is for."""
    if not isinstance(model.model, kind):
        found = type(model.model).__name__
        raise ExpertError(f"{path.name} holds a {found}, not a {kind.__name__}; name other weights, or use {other}")


def _unit(value: float) -> float:
    return round(min(max(value, 0.0), 1.0), 4)
