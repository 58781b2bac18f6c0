"""Tags of a picture, "the picture shows espresso", and of its parts, "bottom fountain", by a classifier of timm."""

from __future__ import annotations

import moai
from moai_tags.region_tagger import TagRegions
from moai_tags.tagger import Tags
from moai_tags.words import TEMPLATES

__all__ = ["TagRegions", "Tags"]


@moai.hookimpl
def register_experts(register) -> None:
    """Register both classes; timm and torch are imported in `load`."""
    register(Tags)
    register(TagRegions)


@moai.hookimpl
def register_templates(register) -> None:
    """Register the words of the role in each language, and in English in the style compact."""
    for language, template in TEMPLATES.items():
        register(Tags.role, language, template)
