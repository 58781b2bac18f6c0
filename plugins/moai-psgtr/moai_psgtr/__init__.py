"""Predict scene graphs by PSGTR, written anew on transformers' DETR.

Knows: which expert there is. Nothing here imports torch or transformers before it is loaded.
"""

from __future__ import annotations

import moai
from moai_psgtr.expert import PSGTR

__all__ = ["PSGTR", "register_experts"]


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class; torch and transformers are imported in `load`."""
    register(PSGTR)
