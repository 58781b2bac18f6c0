"""List the images of a recipe, or of a folder or a file, for perceiving them ahead.

Knows: recipes and their data; which splits training and evaluation read.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.errors import CorpusError, RecipeError
from moai.perception.corpus.inputs import LISTS, Found, holds_lists, is_list, read_images
from moai.perception.running.time_limit import TIME_LIMIT
from moai.recipe.loading import load_recipe

if TYPE_CHECKING:
    from moai.recipe.schema import Recipe


@dataclass(frozen=True)
class CorpusInput:
    """Hold the images to perceive, and by whom where a recipe says it."""

    images: Found
    experts: tuple[str, ...] | None = None  # None: the input says nothing of experts
    options: dict[str, dict[str, Any]] | None = None
    time_limit: float | None = TIME_LIMIT  # of an expert for an image, in seconds
    sharded: bool = False  # whether each source is an input shard


def open_input(given: str, overrides: Sequence[str] = (), column: str = "image") -> CorpusInput:
    """Open what a corpus is made of.

    Args:
        given: a folder of pictures or of lists, a list in JSON lines, CSV or Parquet, or a recipe's file or name.
        overrides: of the recipe.
        column: of a list, with the image's name.

    Raises:
        RecipeError: no such recipe, one that does not fit, or overrides without a recipe.
        CorpusError: a folder with both lists and pictures, or a file of another kind.
    """
    path = Path(given)
    if path.is_dir() or (path.is_file() and path.suffix.lower() not in (".yaml", ".yml")):
        if overrides:
            raise RecipeError(f"'{overrides[0]}' changes a recipe, and {given} is none; leave it out")
        if path.is_file() and not is_list(path):
            raise CorpusError(f"{given} is no list of images; name one of {', '.join(LISTS)}, a folder, or a recipe")
        return CorpusInput(read_images(path, column), sharded=path.is_dir() and holds_lists(path))
    if is_list(path):
        raise CorpusError(f"there is no file {given}; check the path")
    recipe = load_recipe(given, overrides)
    if not recipe.perception.experts:
        raise RecipeError(f"{given} names no experts; set perception.experts")
    p = recipe.perception
    return CorpusInput(recipe_images(recipe), p.experts, p.options, p.time_limit)


def recipe_images(recipe: Recipe) -> Found:
    """Iterate over the images of all splits that the recipe trains on, validates on or is evaluated on.

    Returns:
        The split, the id and the path of each image, also of one that several samples share.

    Raises:
        RecipeError: a split is empty.
        CorpusError: an image is no file, or there is no image at all.
    """
    from moai.data.perceive import images_of
    from moai.data.sources import open_sources

    data, found = recipe.data, False
    for split in dict.fromkeys((data.train_split, data.validation_split, recipe.evaluation.split)):
        for sample in open_sources(data.sources, split, data.train_split):
            for id, image in images_of([sample]).items():
                found = True
                yield split, id, _path(id, image)
    if not found:
        raise CorpusError(
            f"the data of {recipe.name} has no images, so there is nothing to perceive ahead; a sample without images "
            "brings its perception along (Sample.truths)"
        )


def _path(id: str, image: Any) -> str:
    if isinstance(image, (str, os.PathLike)):
        return os.fsdecode(os.fspath(image))
    raise CorpusError(
        f"image '{id}' is no file but {type(image).__name__} in memory; shards are made of files: let the data set "
        "save its images, and give their paths"
    )
