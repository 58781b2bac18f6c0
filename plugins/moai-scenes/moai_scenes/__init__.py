"""Register the data set ``scenes``, and recipes that train on it.

Knows: names. The data set is imported when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import moai


@moai.hookimpl
def register_datasets(register):
    """Register ``scenes``."""
    register("scenes", _scenes)


@moai.hookimpl
def register_recipes(register):
    """Register the recipes in this package."""
    register(Path(__file__).parent / "recipes")


def _scenes(split: str, **options):
    from moai_scenes.scenes import scenes

    return scenes(split, **options)
