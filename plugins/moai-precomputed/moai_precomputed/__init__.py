"""An expert that reads what other programs have found in the pictures: COCO's JSON, LabelMe's folders, JSON lines."""

import moai
from moai_precomputed.expert import Precomputed

__all__ = ["Precomputed"]


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class."""
    register(Precomputed)
