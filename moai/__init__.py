"""moai: give a frozen language model the findings of specialist vision models.

Knows: the public names and the modules that define them. A name is imported on first use, so that ``import moai`` takes
milliseconds and loads no torch, transformers or numpy.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moai.lazy_names import lazy_names
from moai.registration import register_with_transformers

if TYPE_CHECKING:
    from moai.answering import Answer, Augmented, load
    from moai.errors import MoaiError
    from moai.expert import Expert, Options
    from moai.fact_ablation import ablate_facts
    from moai.hookspecs import hookimpl
    from moai.images import read_image
    from moai.model.config import MoaiConfig
    from moai.model.modeling import MoaiForConditionalGeneration
    from moai.model.processor.processor import MoaiProcessor
    from moai.perception.cache.store import Store
    from moai.perception.running.perceiver import Perceiver
    from moai.perception.words.verbalize import verbalize
    from moai.testing import check_expert
    from moai.types.conversation import IMAGE, Conversation, Sample, Turn
    from moai.types.findings import Detection, Mask, Relation, Segment, TextLine
    from moai.types.perception import Perception

__version__ = "0.3.0"

_HOMES = {
    "Answer": "moai.answering",
    "Augmented": "moai.answering",
    "Conversation": "moai.types.conversation",
    "Detection": "moai.types.findings",
    "Expert": "moai.expert",
    "IMAGE": "moai.types.conversation",
    "Mask": "moai.types.findings",
    "MoaiConfig": "moai.model.config",
    "MoaiError": "moai.errors",
    "MoaiForConditionalGeneration": "moai.model.modeling",
    "MoaiProcessor": "moai.model.processor.processor",
    "Options": "moai.expert",
    "Perceiver": "moai.perception.running.perceiver",
    "Perception": "moai.types.perception",
    "Relation": "moai.types.findings",
    "Sample": "moai.types.conversation",
    "Segment": "moai.types.findings",
    "Store": "moai.perception.cache.store",
    "TextLine": "moai.types.findings",
    "Turn": "moai.types.conversation",
    "ablate_facts": "moai.fact_ablation",
    "check_expert": "moai.testing",
    "hookimpl": "moai.hookspecs",
    "load": "moai.answering",
    "read_image": "moai.images",
    "verbalize": "moai.perception.words.verbalize",
}

__all__ = [
    "Answer",
    "Augmented",
    "Conversation",
    "Detection",
    "Expert",
    "IMAGE",
    "Mask",
    "MoaiConfig",
    "MoaiError",
    "MoaiForConditionalGeneration",
    "MoaiProcessor",
    "Options",
    "Perceiver",
    "Perception",
    "Relation",
    "Sample",
    "Segment",
    "Store",
    "TextLine",
    "Turn",
    "__version__",
    "ablate_facts",
    "check_expert",
    "hookimpl",
    "load",
    "read_image",
    "verbalize",
]

if not TYPE_CHECKING:  # a type checker would take every name for a public one
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)

register_with_transformers()
