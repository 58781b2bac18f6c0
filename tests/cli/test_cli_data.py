"""``moai data check``: what is printed, written, and returned."""

from __future__ import annotations

import json

import pytest
import tiny
from click.testing import CliRunner

from moai.cli.main import cli


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a picture, a good file and one with a missing image."""
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny.picture("red").save(tmp_path / "red.png")
    good = {"image": "red.png", "question": "What \x1b[31m[b]color[/b]?", "answer": "red", "id": 1}
    (tmp_path / "good.jsonl").write_text(json.dumps(good))
    (tmp_path / "bad.jsonl").write_text(json.dumps(good) + "\n" + json.dumps({**good, "image": "gone.png", "id": 2}))
    return tmp_path


def run(*words):
    return CliRunner().invoke(cli, ["data", "check", *map(str, words)])


def test_a_good_file(folder):
    outcome = run("good.jsonl", "--show", 1, "--html", "page.html")
    assert outcome.exit_code == 0, outcome.output
    assert "a run would take every row" in outcome.stdout and "they need a recipe" in outcome.stdout
    assert "What  [31m[b]color[/b]?" in outcome.stdout and "\x1b" not in outcome.stdout
    assert ">>red<<" in outcome.stdout
    assert "<mark>red</mark>" in (folder / "page.html").read_text()


def test_a_bad_row_is_named_and_the_exit_code_is_1(folder):
    outcome = run("bad.jsonl")
    assert outcome.exit_code == 1
    assert "bad: missing image, 1" in outcome.stdout and "bad.jsonl:2: image gone.png is missing" in outcome.stdout
    assert "a run would stop: 1 of 2 rows are bad" in outcome.stdout


def test_json_is_one_object(folder):
    outcome = run("bad.jsonl", "--json")
    found = json.loads(outcome.stdout)
    assert outcome.exit_code == 1 and found["rows"] == 2 and found["bad"] == {"missing image": 1}


def test_a_recipe_checks_lengths_too(folder):
    long = {"question": "Is there a red circle? " * 60, "answer": "yes", "id": 3}
    (folder / "long.jsonl").write_text((folder / "good.jsonl").read_text() + "\n" + json.dumps(long))
    made = tiny.recipe(
        data={"sources": [{"format": "jsonl", "path": "long.jsonl"}], "tolerate": 0.6}, perception={"experts": []}
    )
    (folder / "photos.yaml").write_text(made.to_yaml())
    outcome = run("photos.yaml", "--show", 1)
    assert outcome.exit_code == 0, outcome.output
    assert "bad: row too long for the context, 1" in outcome.stdout and "long.jsonl:2: the prompt has" in outcome.stdout
    assert "a run would leave out 1 of 2 rows (data.tolerate: 0.6)" in outcome.stdout
    assert run("photos.yaml", "data.tolerate=0").exit_code == 1


def test_what_is_not_there_is_a_sentence(folder):
    assert run("*.jsonl").exit_code == 1 and "no recipe" in run("nowhere").stderr
    assert "no recipe and no file" in run("*.jsonll").stderr
    outcome = run("good.jsonl", "data.tolerate=0")
    assert outcome.exit_code == 2 and "a file takes --format and --images" in outcome.stderr
