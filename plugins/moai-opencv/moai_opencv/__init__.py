"""Object detection by OpenCV's DNN module: `ssd-coco` with weights of its own, `opencv-detector` with a named file."""

from __future__ import annotations

import moai
from moai_opencv.named_file import OpenCVDetector
from moai_opencv.ssd_coco import SSDCoco

__all__ = ["OpenCVDetector", "SSDCoco"]


@moai.hookimpl
def register_experts(register) -> None:
    """Register both experts; OpenCV is imported in `load`."""
    register(SSDCoco)
    register(OpenCVDetector)
