"""Register the data set ``words``, and the recipe that trains on it.

Knows: names. The data set is imported when it is asked for.
"""

from __future__ import annotations

from pathlib import Path

import moai


@moai.hookimpl
def register_datasets(register):
    """Register ``words``."""
    register("words", _words)


@moai.hookimpl
def register_recipes(register):
    """Register the recipes in this package."""
    register(Path(__file__).parent / "recipes")


def _words(split: str, **options):
    from moai_words.samples import words

    return words(split, **options)
