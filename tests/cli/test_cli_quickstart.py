"""`moai quickstart`, on stand-ins: the order of the stages, and that a second call repeats nothing costly."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from moai.cli import quickstart as command


@pytest.fixture(autouse=True)
def stand_ins(known, model, recipe, trained, monkeypatch):
    monkeypatch.setattr("moai.assets.resolve", lambda reference, revision=None: Path("cache") / reference)
    monkeypatch.setattr("moai.assets.resolve_host", lambda reference, revision=None: Path("cache") / reference)
    monkeypatch.setattr(command, "DEMO_EXPERTS", ("spots", "reader"))
    monkeypatch.setattr(known.experts["reader"], "weights", "wheel:letters")
    chart = types.ModuleType("moai.evaluation.report.chart")
    chart.draw_chart = lambda summary, path: path
    monkeypatch.setitem(sys.modules, "moai.evaluation.report.chart", chart)


def test_the_five_stages_run_in_order_and_are_timed(run_cli, trained, recipe):
    result = run_cli("quickstart")
    assert result.exit_code == 0, result.stderr
    shown = result.stdout
    headlines = ["[1/5] assets", "[2/5] perceive", "[3/5] train", "[4/5] evaluate", "[5/5] ask", "together"]
    assert [shown.index(line) for line in headlines] == sorted(shown.index(line) for line in headlines)
    assert trained == [("toy", "runs/quickstart", False)]
    assert "a random sample of 4 of 6 questions" in shown
    assert "question: question 1?" in shown and "answer:   red" in shown and "expected: red" in shown
    assert "reader:   cache/wheel:letters" in shown and "perceived by spots 3, reader 1" in shown
    for name in ("demo.png", "demo-overlay.png", "eval/report.json"):
        assert (Path("runs/quickstart") / name).is_file()


def test_a_second_call_trains_and_perceives_nothing(run_cli, trained):
    assert "perceived: 2 expert results are new" in run_cli("quickstart").stdout
    again = run_cli("quickstart").stdout
    assert len(trained) == 1 and "trained already" in again
    assert "perceived: 0 expert results are new" in again


def test_an_interrupted_training_goes_on(run_cli, trained):
    Path("runs/quickstart").mkdir(parents=True)
    Path("runs/quickstart/recipe.yaml").write_text("name: toy\n")
    assert "going on with the training" in run_cli("quickstart").stdout
    assert trained == [("toy", "runs/quickstart", True)]


def test_a_run_of_another_recipe_is_not_touched(run_cli, trained):
    Path("runs/quickstart").mkdir(parents=True)
    Path("runs/quickstart/recipe.yaml").write_text("name: other\n")
    result = run_cli("quickstart")
    assert result.exit_code == 1 and "another recipe" in result.stderr and trained == []


def test_run_recipe_and_overrides_are_handed_on(run_cli, recipe, trained):
    run_cli("quickstart", "training.steps=2", "--run", "here", "--recipe", "tiny")
    assert recipe.asked[:1] == [("tiny", ("training.steps=2",))] and trained == [("toy", "here", False)]
