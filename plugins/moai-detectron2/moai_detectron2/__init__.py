"""Segment panoptically with detectron2's Panoptic FPN.

Knows: which expert there is. Nothing here imports detectron2 or torch before it is loaded.
"""

from __future__ import annotations

import moai
from moai_detectron2.expert import PanopticFPN

__all__ = ["PanopticFPN", "register_experts"]


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class; detectron2 and torch are imported in `load`."""
    register(PanopticFPN)
