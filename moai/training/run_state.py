"""Tell whether a run folder is new, started or finished, and whose it is.

Knows: recipes and the names of a run's files.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

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
    if not is_recipe_of(path, recipe):
        raise RecipeError(f"{run} holds a run of another recipe; name another folder with --run, or remove this one")
    return "finished" if (run / "manifest.json").is_file() else "started"


def is_recipe_of(path: Path, recipe: Recipe) -> bool:
    """Tell whether a run's ``recipe.yaml`` is a recipe, but for the time that its experts may take."""
    return _without_time(read_yaml(path)) == _without_time(parse_yaml(recipe.to_yaml(), "the recipe"))


def _without_time(recipe: dict[str, Any]) -> dict[str, Any]:
    perception = recipe.get("perception")
    if not isinstance(perception, dict):
        return recipe
    return {**recipe, "perception": {name: value for name, value in perception.items() if name != "time_limit"}}
