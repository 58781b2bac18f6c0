"""The plain data that plugins, data sets and users exchange: perceptions, conversations and samples."""

from moai.types.checks import MAX_TEXT, check_perception
from moai.types.conversation import IMAGE, Conversation, Sample, Turn
from moai.types.duplicates import DUPLICATE, merge_duplicates
from moai.types.perception import (
    ROLES,
    Box,
    Detection,
    Failure,
    Mask,
    Perception,
    Relation,
    Segment,
    Source,
    TextLine,
    describe,
    merge,
)

__all__ = [
    "DUPLICATE",
    "IMAGE",
    "MAX_TEXT",
    "ROLES",
    "Box",
    "Conversation",
    "Detection",
    "Failure",
    "Mask",
    "Perception",
    "Relation",
    "Sample",
    "Segment",
    "Source",
    "TextLine",
    "Turn",
    "check_perception",
    "describe",
    "merge",
    "merge_duplicates",
]
