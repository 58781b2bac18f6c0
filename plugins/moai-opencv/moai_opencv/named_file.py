"""Detect by any ONNX or TensorFlow detector that the options name and describe.

Knows: the options of a network that somebody else has exported.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from moai.errors import AssetError
from moai.plugin_api import identify, resolve
from moai_opencv.class_names import LISTS, ClassNames, class_names
from moai_opencv.detector import Detector, DetectorOptions
from moai_opencv.network_input import NetworkInput
from moai_opencv.trial import survive


class OpenCVDetector(Detector):
    """Detect by the network in a file, ONNX or TensorFlow; the options say what it reads and writes."""

    name = "opencv-detector"
    version = "1"
    licence = "Apache-2.0 (OpenCV); the network's is that of the file"
    weights = "none bundled; the option model names an .onnx or .pb file"
    by_default = False  # nothing to run until a file is named

    class Options(DetectorOptions):
        model: str = ""
        """The .onnx file, or TensorFlow's .pb: a path, or a hub file `owner/name/file.onnx`. None is guessed."""
        config: str = ""
        """The .pbtxt that describes a .pb, as OpenCV's scripts write it."""
        labels: str | tuple[str, ...] = "coco"
        """Names by class number, a text file with one per line, "coco" (80), or "coco-91" (by the 91-class list)."""
        first_class: int = Field(0, ge=0, le=1)
        """The number of the first label: 1 where 0 is the background."""
        layout: Literal["yolo", "ssd"] = "yolo"
        """The output: "yolo": 1 x (4 + classes) x N, centre and size in pixels; "ssd": 1 x 1 x N x 7, OpenCV's own."""
        output: str = ""
        """The output's name, where the network has several of that shape."""
        width: int = Field(640, ge=8, le=4096)
        """Of the network's input, in pixels."""
        height: int = Field(640, ge=8, le=4096)
        """Of the network's input, in pixels."""
        fit: Literal["pad", "stretch"] = "pad"
        """How a picture of another shape gets into it: with grey margins, or stretched."""
        scale: float = Field(1 / 255, gt=0)
        """What the network reads is (pixel - mean) * scale, with pixels from 0 to 255."""
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
        """Of red, green and blue."""
        rgb: bool = True
        """Red comes first; false: blue."""

    options: Options

    @property
    def input(self) -> NetworkInput:
        """What the options say."""
        given = self.options
        return NetworkInput(given.width, given.height, given.scale, given.mean, given.rgb, given.fit)

    @property
    def layout(self) -> str:
        """What the options say."""
        return self.options.layout

    def output_name(self) -> str:
        """Return what the options say."""
        return self.options.output

    def weights_id(self) -> str:
        """Identify network, description and labels by what is in their files."""
        named = [self.options.model, self.options.config]
        if isinstance(self.options.labels, str) and self.options.labels not in LISTS:
            named.append(self.options.labels)
        return "+".join(identify(reference) for reference in named if reference)

    def files(self) -> tuple[Path, Path | None]:
        """Find the files, or download those of the hub, and try them where a crash does no harm."""
        if not self.options.model:
            raise AssetError(
                f"expert '{self.name}' has no network of its own; name an .onnx or .pb file in its option model"
            )
        model = resolve(self.options.model)
        config = resolve(self.options.config) if self.options.config else None
        if model.is_file():
            survive(model, config, self.options.width, self.options.height)
        return model, config

    def class_names(self) -> ClassNames:
        """Name the classes as the options say."""
        return class_names(self.options.labels, self.options.first_class)
