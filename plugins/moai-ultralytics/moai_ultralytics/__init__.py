"""Detect an open vocabulary with Ultralytics' YOLO-World and YOLOE, as a plugin under AGPL-3.0.

Knows: which experts there are. Nothing of moai imports this package; it is found through its entry point when it is
installed, and whoever installs it takes on the AGPL-3.0 for what is built with it.
"""

from __future__ import annotations

import moai
from moai_ultralytics.world import YOLOWorld
from moai_ultralytics.yoloe import YOLOE

__all__ = ["YOLOE", "YOLOWorld", "register_experts"]


@moai.hookimpl
def register_experts(register) -> None:
    """Register the classes; Ultralytics, torch and transformers are imported in `load`."""
    register(YOLOWorld)
    register(YOLOE)
