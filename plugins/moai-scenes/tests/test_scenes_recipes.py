"""The recipes are found by name, and each ablation is without one expert."""

from __future__ import annotations

import moai_scenes
import pytest

from moai.evaluation.ablation.plan import plan_ablations
from moai.plugins import load_registry
from moai.recipe.loading import load_recipe
from moai.recipe.places import find_recipe


def test_the_names_are_registered():
    known = load_registry(plugins=[])
    names = {name for name, path in known.recipes.items() if "moai_scenes" in path.parts}
    assert {"scenes", "scenes-connector-only", "scenes-prompt", "ablations-scenes/scenes-without-tally"} <= names
    assert "scenes" in known.datasets and moai_scenes.__name__ == "moai_scenes"


@pytest.mark.parametrize("name", ["scenes", "scenes-connector-only", "scenes-prompt"])
def test_each_trains_on_the_data_set(name):
    recipe = load_recipe(find_recipe(name))
    assert (recipe.name, recipe.data.sources[0].name) == (name, "scenes")


def test_each_ablation_of_scenes_is_without_one_expert():
    planned = {a.name: a.recipe for a in plan_ablations("ablations-scenes")}
    lengths = {sum(stage.steps for stage in r.stages) for r in planned.values()}
    sizes = {(r.training.batch_size, r.seed, str(r.data), r.host) for r in planned.values()}
    assert len(lengths) == len(sizes) == 1
    base = planned.pop("scenes").perception
    left = {name: tuple(e for e in base.experts if name != f"scenes-without-{e}") for name in planned}
    assert {name: recipe.perception.experts for name, recipe in planned.items()} == left
    assert len(planned) == len(base.experts) and all(len(experts) == len(base.experts) - 1 for experts in left.values())
