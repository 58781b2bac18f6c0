"""The plain data that plugins, data sets and users exchange: perceptions, conversations and samples."""

from moai.types.checks import MAX_TEXT, check_perception
from moai.types.coco import categories_by_id
from moai.types.conversation import IMAGE, Choice, Conversation, Sample, Turn
from moai.types.duplicates import DUPLICATE, merge_duplicates
from moai.types.findings import Box, Detection, Mask, Relation, Segment, TextLine, describe
from moai.types.perception import ROLES, Failure, Perception, Source, merge, sign
from moai.types.pixels import to_box, to_number, to_polygon, to_score
from moai.types.rationale import DESCRIBE, describe_images, with_rationale
from moai.types.rle import mask_from_coco, mask_to_coco

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
    "categories_by_id",
    "check_perception",
    "describe",
    "describe_images",
    "mask_from_coco",
    "mask_to_coco",
    "merge",
    "merge_duplicates",
    "sign",
    "to_box",
    "to_number",
    "to_polygon",
    "to_score",
    "with_rationale",
]
