"""The format ``dataset``: a registered data set, by its name.

Knows: the registry.
"""

from __future__ import annotations

from typing import Any

from moai import plugins
from moai.data.samples import Listed
from moai.data.source import Source
from moai.errors import RecipeError


def dataset(source: Source, **options: Any) -> Listed:
    """Open a data set that a plugin registers.

    Args:
        source: with the data set's name.
        options: the data set's own.

    Raises:
        RecipeError: an unknown name, options that the data set does not take, or a path.
    """
    if source.name is None or source.path is not None:
        raise RecipeError("format dataset reads a registered data set; give data.sources a name, and no path")
    factory = plugins.registry().get_dataset(source.name)
    try:
        return Listed(factory(source.split, **options))
    except TypeError as error:
        raise RecipeError(f"options does not fit data set '{source.name}': {error}") from None
