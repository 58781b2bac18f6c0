"""`moai quickstart`, on stand-ins: its stages, the recipe's own picture, and that nothing costly is repeated."""

from __future__ import annotations

import shlex
import sys
import types
from pathlib import Path

import pytest
from PIL import Image

from moai.cli.quickstart import quoted
from moai.perception.running.perceiver import Perceiver

RUN = Path("runs/toy")


@pytest.fixture(autouse=True)
def stand_ins(known, model, recipe, trained, monkeypatch):
    monkeypatch.setattr("moai.assets.resolve", lambda reference, revision=None: Path("cache") / reference)
    monkeypatch.setattr("moai.assets.resolve_host", lambda reference, revision=None: Path("cache") / reference)
    monkeypatch.setattr(known.experts["reader"], "weights", "wheel:letters")
    model.perceiver = Perceiver(["spots"], options={"spots": {"least": 0.75}})  # one that fails stops an evaluation
    chart = types.ModuleType("moai.evaluation.report.chart")
    chart.draw_chart = lambda summary, path: path
    monkeypatch.setitem(sys.modules, "moai.evaluation.report.chart", chart)


def test_the_five_stages_run_in_order_and_are_timed(run_cli, trained):
    result = run_cli("quickstart")
    assert result.exit_code == 0, result.stderr
    shown = result.stdout
    headlines = ["[1/5] assets", "[2/5] perceive", "[3/5] train", "[4/5] evaluate", "[5/5] ask", "together"]
    assert [shown.index(line) for line in headlines] == sorted(shown.index(line) for line in headlines)
    assert trained == [("toy", "runs/toy", False)]
    assert "a random sample of 4 of 6 questions" in shown and (RUN / "eval/report.json").is_file()


def test_the_assets_are_those_of_the_recipe(run_cli, recipe):
    recipe.perception.experts = ("reader",)
    recipe.perception.options = {}
    shown = run_cli("quickstart").stdout
    lines = ["host:     cache/host", "vision:   cache/vision", "reader:   cache/wheel:letters"]
    assert all(line in shown for line in [*lines, "data:     toy, 6 questions of the split 'test'"])
    assert "perceived by reader 1\n" in shown and "spots" not in shown.partition("[3/5]")[0]
    recipe.vision.kind = "none"
    assert "vision:" not in run_cli("quickstart").stdout


def test_the_recipes_experts_perceive_the_picture_that_is_asked_about(run_cli, model):
    shown = run_cli("quickstart").stdout
    perceived, asked = shown.partition("[3/5]")[0].partition("[2/5]")[2], shown.partition("[5/5]")[2]
    assert f"{RUN}/picture.png, perceived by spots 3, reader 1" in perceived and "0.75" in perceived  # its options
    assert (
        "] spot. The image includes text descriptions: [bold]EXIT" in perceived
        and f"overlay:  {RUN}/picture-overlay.png" in perceived
    )
    with Image.open(RUN / "picture.png") as picture:
        assert picture.size == (8, 8) and picture.getpixel((0, 0)) == (0, 0, 0)  # the first image
    assert (RUN / "picture-overlay.png").is_file()
    order = ["question: question 1?", "answer:   red", "expected: red", "question: question 0?", "expected: yes"]
    assert [asked.index(line) for line in order] == sorted(asked.index(line) for line in order)
    assert model.asked == [("question 1?", 8), ("question 0?", 8)]  # tokens: evaluation.max_new_tokens
    assert shown.rstrip().endswith('try:       moai ask runs/toy YOUR.jpg "question 1?"')


def test_a_recipe_without_experts_perceives_nothing(run_cli, recipe):
    recipe.perception.experts, recipe.perception.options = (), {}
    result = run_cli("quickstart")
    assert result.exit_code == 0 and "the recipe names no experts, so that nothing is perceived" in result.stdout
    assert (RUN / "picture.png").is_file() and not (RUN / "picture-overlay.png").exists()
    assert "expected: red" in result.stdout


def test_without_a_picture_it_trains_and_evaluates_all_the_same(run_cli, recipe, model, trained):
    recipe.evaluation.split = "text"
    result = run_cli("quickstart")
    assert result.exit_code == 0, result.stderr
    assert "no question of the split 'text' is about one picture: there is none to perceive" in result.stdout
    assert "there is no picture to ask about" in result.stdout and "try:" not in result.stdout
    assert len(trained) == 1 and (RUN / "eval-full/report.json").is_file()
    assert model.asked == [] and not (RUN / "picture.png").exists()


def test_an_expert_that_fails_is_a_warning(run_cli, recipe):
    recipe.perception.experts = ("spots", "broken")
    result = run_cli("quickstart")
    assert result.exit_code == 0 and "perceived by spots 3\n" in result.stdout
    assert f"warning: {RUN}/picture.png: expert 'broken' gave nothing: RuntimeError: no battery" in result.stderr


def test_a_second_call_trains_and_perceives_nothing(run_cli, trained):
    assert "perceived: 2 expert results are new" in run_cli("quickstart").stdout
    again = run_cli("quickstart").stdout
    assert len(trained) == 1 and "trained already" in again
    assert "perceived: 0 expert results are new" in again


def test_an_interrupted_training_goes_on(run_cli, trained):
    RUN.mkdir(parents=True)
    (RUN / "recipe.yaml").write_text("name: toy\n")
    assert "going on with the training" in run_cli("quickstart").stdout
    assert trained == [("toy", "runs/toy", True)]


def test_a_run_of_another_recipe_is_not_touched(run_cli, trained):
    RUN.mkdir(parents=True)
    (RUN / "recipe.yaml").write_text("name: other\n")
    result = run_cli("quickstart")
    assert result.exit_code == 1 and "another recipe" in result.stderr and trained == []
    assert not (RUN / "picture.png").exists()


def test_run_recipe_and_overrides_are_handed_on(run_cli, recipe, trained):
    run_cli("quickstart", "training.steps=2", "--run", "here", "--recipe", "tiny")
    assert recipe.asked[:1] == [("tiny", ("training.steps=2",))] and trained == [("toy", "here", False)]
    run_cli("quickstart", "--run", "there")
    assert recipe.asked[-1][0] != "tiny" and ("quickstart", ()) in recipe.asked


@pytest.mark.parametrize(
    "question", ["How many people are there?", 'Does it say "$(EXIT)"?', "a`b`", "그림에 뭐가 있나요?"]
)
def test_a_question_is_one_word_of_a_command(question):
    assert shlex.split(quoted(question)) == [question]
    assert ("$" in question or "`" in question) == quoted(question).startswith("'")


def test_a_question_brings_no_control_characters():
    assert shlex.split(quoted("\x1b[31mred?\n")) == [" [31mred? "]
