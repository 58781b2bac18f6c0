"""The format ``dataset``: a registered data set, by its name.

Knows: the registry.
"""

from __future__ import annotations

from typing import Any

from moai import plugins
from moai.data.samples import Listed, raised
from moai.data.source import Source
from moai.errors import DataError, MoaiError, RecipeError


def dataset(source: Source, **options: Any) -> Listed:
    """Open a data set that a plugin registers.

    Args:
        source: with the data set's name.
        options: the data set's own.

    Raises:
        RecipeError: an unknown name, options that the data set does not take, or a path.
        DataError: the data set raises anything else.
    """
    if source.name is None or source.path is not None:
        raise RecipeError("format dataset reads a registered data set; give data.sources a name, and no path")
    factory = plugins.registry().get_dataset(source.name)
    name = f"data set '{source.name}'"
    try:
        return Listed(factory(source.split, **options), name)
    except MoaiError:
        raise
    except TypeError as error:
        raise RecipeError(f"options does not fit {name}: {error}") from None
    except Exception as error:  # a plugin may do anything
        raise DataError(f"{name}: {raised(error)}; report it to its author") from error
