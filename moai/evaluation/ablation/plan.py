"""Plan ablations: a folder of recipes that each change something of one base, and the base itself.

Knows: recipes. The base comes first. What is set for all is set in the base, so that an ablation's own keys win.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai.errors import RecipeError, nearest
from moai.recipe.loading import merge, resolve, validate, without_dropped
from moai.recipe.places import find_base, find_recipe_folder
from moai.recipe.schema import Recipe
from moai.recipe.yaml_file import read_yaml

log = logging.getLogger("moai")


@dataclass(frozen=True)
class Ablation:
    """Hold one training: its recipe, and what it changes of the base (dotted key -> value; nothing for the base)."""

    recipe: Recipe
    changed: dict[str, Any]

    @property
    def name(self) -> str:
        """Return the recipe's name."""
        return self.recipe.name


def plan_ablations(
    folder: str | Path, only: Sequence[str] = (), overrides: Sequence[str] = (), steps: int | None = None
) -> list[Ablation]:
    """Plan the base, then the folder's recipes by name.

    Args:
        folder: YAML files that all extend the same one; or the name of such a folder in ``./recipes`` or among those
            that come with moai.
        only: names of those to train; all when empty. The base is always among them.
        overrides: ``key=value`` for all.
        steps: optimisation steps of each training, shared out as its recipe does; None leaves them as they are.

    Raises:
        RecipeError: no recipes there, an unknown name, or recipes that do not extend one and the same.
    """
    folder = find_recipe_folder(folder)
    files = {path.stem: path for path in sorted(folder.glob("*.yaml"))}
    for name in only:
        if name not in files:
            raise RecipeError(f"{folder} has no recipe '{name}'{nearest(name, files)}")
    base_path = _base_of(files)
    base = resolve(base_path, overrides)
    found = [Ablation(_recipe(base, base_path.name, steps), {})]
    for name in only or files:
        own = {key: value for key, value in read_yaml(files[name]).items() if key != "extends"}
        data = {**without_dropped(merge(base, own)), "name": own.get("name", name)}
        made = Ablation(
            _recipe(data, files[name].name, steps), dict(_flat({k: v for k, v in own.items() if k != "name"}))
        )
        if made.recipe.model_copy(update={"name": found[0].name}) == found[0].recipe:
            log.warning("%s changes nothing of %s as it is set here, and is left out", name, found[0].name)
            continue
        found.append(made)
    return found


def _base_of(files: Mapping[str, Path]) -> Path:
    bases: dict[Path, str] = {}
    for name, path in files.items():
        extended = read_yaml(path).get("extends")
        if not isinstance(extended, str):
            raise RecipeError(f"{path} extends nothing; an ablation extends the recipe it is compared with")
        bases.setdefault(find_base(path, extended).resolve(), name)
    if len(bases) > 1:
        first, second = list(bases.items())[:2]
        raise RecipeError(
            f"'{first[1]}' extends {first[0].name} and '{second[1]}' extends {second[0].name}; "
            "ablations of one table extend one recipe: move them into folders of their own"
        )
    [base] = bases
    return base


def _recipe(data: dict[str, Any], label: str, steps: int | None) -> Recipe:
    recipe = validate(data, Recipe, label)
    return recipe if steps is None else _shortened(recipe, steps)


def _shortened(recipe: Recipe, steps: int) -> Recipe:
    """The same plan in ``steps`` steps: the stages that teach to answer, and their warm-up, keep their shares."""
    answers = [stage for stage in recipe.stages if stage.objective == "answers"]
    if not answers:
        raise RecipeError(f"recipe {recipe.name} has no stage with objective: answers to shorten; give it one")
    if counted := [stage.name for stage in answers if stage.steps is None]:
        raise RecipeError(f"recipe {recipe.name}: stage '{counted[0]}' counts epochs; give it steps to shorten it")
    if steps < len(answers):
        raise RecipeError(f"recipe {recipe.name} has {len(answers)} stages with objective: answers; give as many steps")
    total, lengths = sum(stage.steps for stage in answers), {}
    for stage in answers[:-1]:
        lengths[stage.name] = max(1, round(steps * stage.steps / total))
    lengths[answers[-1].name] = steps - sum(lengths.values())
    made = []
    for stage in recipe.stages:
        if stage.name in lengths:
            warmup = round(stage.schedule.warmup * min(1.0, steps / total))
            schedule = stage.schedule.model_copy(update={"warmup": warmup})
            stage = stage.model_copy(update={"steps": lengths[stage.name], "schedule": schedule})
        made.append(stage)
    return recipe.model_copy(update={"stages": tuple(made)})


def _flat(data: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in data.items():
        if key == "stages" and isinstance(value, list):
            value = {stage["name"]: {k: v for k, v in stage.items() if k != "name"} for stage in value}
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield prefix + str(key), value
