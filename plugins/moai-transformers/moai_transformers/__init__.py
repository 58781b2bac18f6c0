"""Register experts of Hugging Face transformers: panoptic segmentation, open-world detection, predicates.

Knows: which classes there are. None of the modules here imports torch or transformers before an expert is loaded.
"""

from __future__ import annotations

import moai
from moai_transformers.grounding import GroundingDino, LLMDet, MMGroundingDino
from moai_transformers.omdet import OmDetTurbo
from moai_transformers.owlv2 import OWLv2
from moai_transformers.panoptic import EoMT, Mask2Former
from moai_transformers.predicates import Predicates

__all__ = [
    "EoMT",
    "GroundingDino",
    "LLMDet",
    "MMGroundingDino",
    "Mask2Former",
    "OWLv2",
    "OmDetTurbo",
    "Predicates",
    "register_experts",
]


@moai.hookimpl
def register_experts(register) -> None:
    """Register the classes; torch and transformers are imported in `load`."""
    for expert in (EoMT, Mask2Former, OWLv2, LLMDet, MMGroundingDino, GroundingDino, OmDetTurbo, Predicates):
        register(expert)
