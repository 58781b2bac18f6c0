"""`moai train`."""

from __future__ import annotations

import sys
from pathlib import Path


def test_a_recipe_is_trained_into_runs(run_cli, recipe, trained):
    result = run_cli("train", "toy.yaml", "training.batch_size=8", "seed=1")
    assert result.exit_code == 0 and "moai eval runs/toy" in result.stdout
    assert recipe.asked == [("toy.yaml", ("training.batch_size=8", "seed=1"))]
    assert trained == [("toy", "runs/toy", False)]


def test_run_and_resume_are_handed_on(run_cli, recipe, trained):
    run_cli("train", "toy.yaml", "--run", "elsewhere", "--resume")
    assert trained == [("toy", "elsewhere", True)]


def test_a_dry_run_checks_and_prints_the_recipe_and_trains_nothing(run_cli, recipe, trained, monkeypatch):
    asked = []
    monkeypatch.setattr("moai.training.check.check_recipe", lambda recipe: asked.append(recipe) or ["the layers"])
    result = run_cli("train", "toy.yaml", "--dry-run")
    assert result.stdout == "name: toy\n" and trained == [] and not Path("runs").exists()
    assert asked == [recipe] and result.stderr == "loading the recipe toy.yaml\nnot checked: the layers\n"


def test_an_interrupt_names_the_line_that_goes_on(run_cli, recipe, trained, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.modules["moai.training.trainer"], "train", stop)
    result = run_cli("train", "my recipe.yaml", "seed=1")
    assert result.exit_code == 130
    assert "continue with: moai train 'my recipe.yaml' seed=1 --run runs/toy --resume" in result.stderr
