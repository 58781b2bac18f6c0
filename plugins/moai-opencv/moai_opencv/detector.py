"""Detect by a network that OpenCV runs: pictures in, detections out.

Knows: the steps from a picture to its detections. Which network it is, and what it reads and writes, is left to the
two experts.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image
from pydantic import Field

from moai import Expert, Options
from moai.errors import ExpertError
from moai.types import Detection, Perception
from moai_opencv.class_names import ClassNames
from moai_opencv.findings import Findings
from moai_opencv.layouts import LAYOUTS
from moai_opencv.network import MAX_THREADS, Network
from moai_opencv.network_input import NetworkInput, Placement


class DetectorOptions(Options):
    """Hold the options of both experts."""

    min_score: float = Field(0.45, ge=0, le=1)
    """Objects with less confidence are left out."""
    max_overlap: float = Field(0.5, ge=0, le=1)
    """Of two boxes of one name whose intersection over union is larger, the weaker is left out."""
    max_overlap_of_names: float = Field(0.85, ge=0, le=1)
    """The same between different names, which are then two names for one thing; 1 keeps both."""
    max_objects: int = Field(50, ge=1, le=10_000)
    """At most so many objects per picture, the strongest."""
    threads: int = Field(1, ge=1, le=MAX_THREADS)
    """OpenCV's threads while detecting."""


class Detector(Expert):
    """Detect by OpenCV on the CPU; the strongest object comes first."""

    role = "open_world"
    modules = ("cv2",)
    install = "pip install moai-opencv"
    Options = DetectorOptions

    _network: Network | None = None
    _output = ""
    _names: ClassNames | None = None

    @property
    @abstractmethod
    def input(self) -> NetworkInput:
        """What the network reads."""

    @property
    @abstractmethod
    def layout(self) -> str:
        """What the network writes: a key of ``LAYOUTS``."""

    @abstractmethod
    def files(self) -> tuple[Path, Path | None]:
        """Fetch the network's file, and the one that describes it, if there is one."""

    @abstractmethod
    def class_names(self) -> ClassNames:
        """Name the classes."""

    def output_name(self) -> str:
        """Return the name of the output that holds the boxes; empty where the network has one alone that fits."""
        return ""

    def load(self, device: str = "cpu") -> None:
        """Read the network and try it on a grey picture; OpenCV runs it on the CPU whatever ``device`` is.

        Raises:
            AssetError: files that are not there, or that OpenCV cannot use with these options.
            ExpertError: labels or a layout that do not match what the network gives.
        """
        names = self.class_names()
        network = Network(*self.files(), self.options.threads)
        blob, _ = self.input.blob(Image.new("RGB", (self.input.width, self.input.height), (114, 114, 114)))
        output = self._chosen_output(network.model, network.run(blob), names)
        self._network, self._output, self._names = network, output, names

    def unload(self) -> None:
        """Drop the network."""
        self._network = self._names = None

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Detect in each picture on its own, so that its boxes do not depend on others; a batch gains nothing here."""
        return [self._detect(image) for image in images]

    def to_perception(self, output: np.ndarray, names: ClassNames, placement: Placement) -> Perception:
        """Convert the network's output for one picture to detections in [0, 1].

        Raises:
            ExpertError: a class without a label, or numbers that are not finite.
        """
        options = self.options
        found = LAYOUTS[self.layout].read(output, (self.input.width, self.input.height))
        if not found.finite:
            raise ExpertError(f"the network of '{self.name}' gave numbers that are not finite; check scale and mean")
        found = Findings(placement.undo(found.boxes), found.scores, found.classes).strong(options.min_score)
        found = found.each_once(options.max_overlap)
        if options.max_overlap_of_names < 1:
            found = found.each_once(options.max_overlap_of_names, across_classes=True)
        detections = []
        for box, score, number in zip(found.boxes, found.scores, found.classes, strict=True):
            label = names[int(number)]
            x0, y0, x1, y1 = (round(min(max(float(edge), 0.0), 1.0), 4) for edge in box)
            if label is not None and x0 < x1 and y0 < y1:
                detections.append(Detection(label, round(min(float(score), 1.0), 4), (x0, y0, x1, y1)))
        return Perception(detections=tuple(detections[: options.max_objects]))

    def _detect(self, image: Image.Image) -> Perception:
        assert self._network is not None and self._names is not None, "load comes first"
        blob, placement = self.input.blob(image)
        return self.to_perception(self._network.run(blob)[self._output], self._names, placement)

    def _chosen_output(self, model: Path, outputs: dict[str, np.ndarray], names: ClassNames) -> str:
        layout = LAYOUTS[self.layout]
        fitting = [name for name, output in outputs.items() if layout.fits(output.shape, names.count)]
        wanted = self.output_name()
        if wanted in fitting or (not wanted and len(fitting) == 1):
            return wanted or fitting[0]
        given = ", ".join(f"'{name}' of {' x '.join(map(str, output.shape))}" for name, output in outputs.items())
        if wanted and wanted not in outputs:
            raise ExpertError(f"{model} has no output '{wanted}', but {given}; name one of them in the option output")
        if not wanted and len(fitting) > 1:
            raise ExpertError(f"{model} gives {given}; name the one with the boxes in the option output")
        raise ExpertError(
            f"{model} gives {given}, where the layout '{self.layout}' is {layout.written} with {names.count} classes; "
            "give the labels that it was trained with, or another layout"
        )
