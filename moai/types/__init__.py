"""The plain data that plugins, data sets and users exchange: perceptions, conversations and samples."""

from moai.types.checks import MAX_TEXT, check_perception
from moai.types.conversation import IMAGE, Choice, Conversation, Sample, Turn
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
    sign,
)
from moai.types.rationale import DESCRIBE, describe_images, with_rationale

__all__ = [
    "DESCRIBE",
    "DUPLICATE",
    "IMAGE",
    "MAX_TEXT",
    "ROLES",
    "Box",
    "Choice",
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
    "describe_images",
    "merge",
    "merge_duplicates",
    "sign",
    "with_rationale",
]
