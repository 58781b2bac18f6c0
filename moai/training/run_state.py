"""Tell whether a run folder is new, started or finished, and whose it is.

Knows: recipes and the names of a run's files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from moai.errors import RecipeError
from moai.recipe.schema import Recipe
from moai.recipe.yaml_file import parse_yaml, read_yaml


def run_state(recipe: Recipe, run: Path) -> Literal["new", "started", "finished"]:
    """Return ``"new"``, ``"started"`` or ``"finished"``.

    Raises:
        RecipeError: the folder holds a run of another recipe.
    """
    path = run / "recipe.yaml"
    if not path.is_file():
        return "new"
    if read_yaml(path) != parse_yaml(recipe.to_yaml(), "the recipe"):
        raise RecipeError(f"{run} holds a run of another recipe; name another folder with --run, or remove this one")
    return "finished" if (run / "manifest.json").is_file() else "started"
