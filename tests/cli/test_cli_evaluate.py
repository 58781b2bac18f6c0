"""`moai eval`."""

from __future__ import annotations

import json
import sys
import types

import pytest

from moai.cli.evaluate import draw


@pytest.fixture
def run(tmp_path, recipe, model, monkeypatch):
    """A run folder; the chart is an empty file, since drawing has its own tests."""
    folder = tmp_path / "runs" / "toy"
    folder.mkdir(parents=True)
    (folder / "recipe.yaml").write_text("name: toy\n")
    fake = types.ModuleType("moai.evaluation.chart")
    fake.draw_chart = lambda summary, path: path
    monkeypatch.setitem(sys.modules, "moai.evaluation.chart", fake)
    return folder


def report(run):
    [path] = run.glob("eval*/report.json")
    return json.loads(path.read_text())


def test_the_recipes_limit_is_the_default_and_said(run_cli, run):
    result = run_cli("eval", run)
    assert result.exit_code == 0, result.stderr
    assert "a random sample of 4 of 6 questions, seed 0" in result.stdout
    assert report(run)["n"] == 4 and report(run)["conditions"] == ["on", "off", "shuffled"]
    assert "report.json" in result.stdout and (run / "eval" / "predictions.jsonl").is_file()


def test_full_asks_everything_and_pairs_the_conditions(run_cli, run):
    assert "all 6 questions" in run_cli("eval", run, "--full").stdout
    groups = report(run)["groups"]
    assert groups["overall"]["accuracy"]["on"]["value"] == 0.5
    assert groups["open"]["differences"]["on-off"]["value"] == 1.0


def test_limit_seed_and_conditions(run_cli, run):
    run_cli("eval", run, "--limit", 2, "--seed", 7, "--perception", "off,on", "--batch-size", 1)
    found = report(run)
    assert (found["n"], found["seed"], found["conditions"]) == (2, 7, ["off", "on"])


def test_perception_off_alone_perceives_nothing(run_cli, run, known):
    run_cli("eval", run, "--perception", "off")
    assert known.experts["spots"].calls == 0


def test_each_image_is_perceived_once_and_failures_are_counted(run_cli, run, known):
    result = run_cli("eval", run, "--full")
    assert known.experts["spots"].calls == 3
    assert "expert 'broken' gave nothing for 3 of 3 images: RuntimeError: no battery" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("--limit", "3", "--full"), 2, "not both"),
        (("--perception", "onn"), 1, "no condition 'onn'; did you mean 'on'?"),
        (("--split", "empty"), 1, "the split 'empty' of toy is empty"),
        (("--limit", "0"), 2, "limit"),
    ],
)
def test_a_wrong_argument_is_a_sentence(run_cli, run, arguments, code, words):
    result = run_cli("eval", run, *arguments)
    assert result.exit_code == code and words in result.stderr


def test_a_folder_that_is_no_run_is_a_sentence(run_cli, tmp_path):
    result = run_cli("eval", tmp_path)
    assert result.exit_code == 1 and "no run folder" in result.stderr


def test_a_larger_draw_contains_a_smaller_one():
    numbers = list(range(100))
    small, large = draw(numbers, 10, seed=3), draw(numbers, 30, seed=3)
    assert set(small) < set(large) and small == sorted(small) and len(set(large)) == 30
    assert draw(numbers, 10, seed=4) != small
    assert draw(numbers, None, seed=3) is numbers and draw(numbers, 100, seed=3) is numbers
