"""What a run folder is: new, started, finished, or another recipe's."""

from types import SimpleNamespace

import pytest

from moai.errors import RecipeError
from moai.training.run_state import run_state

RECIPE = SimpleNamespace(to_yaml=lambda: "name: toy\nseed: 1\n")


def test_the_state_follows_from_the_files(tmp_path):
    assert run_state(RECIPE, tmp_path) == "new"
    (tmp_path / "recipe.yaml").write_text("seed: 1\nname: toy\n")
    assert run_state(RECIPE, tmp_path) == "started"
    (tmp_path / "manifest.json").write_text("{}")
    assert run_state(RECIPE, tmp_path) == "finished"


def test_the_time_of_experts_is_no_other_recipe(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: toy\nseed: 1\nperception: {time_limit: 3, style: paper}\n")
    given = SimpleNamespace(to_yaml=lambda: "name: toy\nseed: 1\nperception: {time_limit: null, style: paper}\n")
    assert run_state(given, tmp_path) == "started"
    other = SimpleNamespace(to_yaml=lambda: "name: toy\nseed: 1\nperception: {time_limit: 3, style: compact}\n")
    with pytest.raises(RecipeError, match="another recipe"):
        run_state(other, tmp_path)


def test_a_folder_of_another_recipe_is_refused(tmp_path):
    (tmp_path / "recipe.yaml").write_text("name: toy\nseed: 2\n")
    with pytest.raises(RecipeError, match="holds a run of another recipe; name another folder with --run"):
        run_state(RECIPE, tmp_path)
