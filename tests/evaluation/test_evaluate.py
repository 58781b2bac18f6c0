"""Evaluating a run folder from Python: what is answered, what comes back, and what is written."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import pytest

from moai import plugins
from moai.data.formats.dataset import dataset
from moai.errors import CheckpointError, DataError, RecipeError
from moai.evaluation import evaluate
from moai.evaluation.evaluate import evaluate_run, folder_of, sources_of
from moai.expert import Expert
from moai.perception.running.perceiver import Perceiver
from moai.recipe.sections import Data


@pytest.fixture
def recipe():
    wanted = {"limit": 5, "split": "test", "conditions": ("on", "off", "shuffled"), "batch_size": 4}
    return SimpleNamespace(
        name="toy",
        seed=0,
        data=Data(sources=[{"format": "dataset", "name": "toy"}]),
        perception=SimpleNamespace(shards=None),
        evaluation=SimpleNamespace(**wanted, max_new_tokens=8),
    )


@pytest.fixture
def run(tmp_path, monkeypatch, recipe, samples):
    """A run folder of a recipe whose data set is the twelve questions; nothing is drawn."""
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "recipe.yaml").write_text("name: toy\n")
    sets = plugins.Registry(
        datasets={"toy": lambda split, **options: samples if split != "empty" else []}, formats={"dataset": dataset}
    )
    monkeypatch.setattr(plugins, "registry", lambda: sets)
    monkeypatch.setattr(evaluate.loading, "load_recipe", lambda path: recipe)
    monkeypatch.setattr("moai.evaluation.report.chart.draw_chart", lambda summary, path: path)
    monkeypatch.setattr("moai.evaluation.report.page.draw_all", lambda summary: {"accuracy": "data:,"})
    return folder


@pytest.fixture
def augmented(parrot, perceptions):
    """The parrot with one expert, which finds the colour of an image's first pixel."""
    colours = {(255, 0, 0): "red", (0, 128, 0): "green", (0, 0, 255): "blue", (0, 0, 0): "black"}

    class Pixel(Expert):
        name = "pixel"
        role = "panoptic"
        version = "1"

        def perceive(self, images, context):
            return [perceptions[colours[image.getpixel((0, 0))]] for image in images]

    parrot.perceiver = Perceiver([Pixel()])
    return parrot


def test_an_evaluation_in_python_returns_figures_answers_and_files(run, augmented):
    made = evaluate_run(run, augmented=augmented, full=True)
    accuracy = made.summary["groups"]["overall"]["accuracy"]
    assert {name: value["value"] for name, value in accuracy.items()} == {"on": 1.0, "off": 0.0, "shuffled": 0.0}
    assert made.folder == run / "eval-full" and len(made.records) == 12
    assert [path.name for path in made.files][:2] == ["report.json", "predictions.jsonl"]
    assert json.loads(made.files[0].read_text()) == json.loads(json.dumps(made.summary))


def test_what_is_left_out_is_the_recipes(run, augmented):
    made = evaluate_run(run, augmented=augmented)
    assert (made.summary["n"], made.summary["split"]) == (5, "test") and made.folder == run / "eval"
    assert max(len(questions) for _, questions, _, _ in augmented.calls) == 4
    assert evaluate_run(run, augmented=augmented, limit=3, conditions=["on"]).summary["conditions"] == ["on"]


def test_nothing_is_printed_on_stdout(run, augmented, capsys):
    evaluate_run(run, augmented=augmented)
    assert capsys.readouterr().out == ""


def test_wrong_arguments_are_a_sentence_before_a_model_is_loaded(run, tmp_path):
    with pytest.raises(RecipeError, match="leave out one of the two"):
        evaluate_run(run, limit=3, full=True)
    with pytest.raises(RecipeError, match="the split 'empty' of toy is empty"):
        evaluate_run(run, split="empty")
    with pytest.raises(CheckpointError, match="no run folder"):
        evaluate_run(tmp_path)


def test_the_folders_name_says_what_differs_from_the_recipe(recipe):
    assert folder_of(recipe, "toy", "test", full=False) == "eval"
    assert folder_of(recipe, "other", "unseen", full=True) == "eval-other-unseen-full"


def test_a_data_set_of_the_recipe_keeps_its_options_in_its_splits_and_has_its_defaults_in_others(recipe):
    given = {"format": "dataset", "name": "toy", "options": {"size": 3}, "splits": ["train", "test"]}
    recipe.data = Data(sources=[given, {"format": "dataset", "name": "other"}])
    assert [(one.name, one.options) for one in sources_of(recipe, "toy", "test")] == [("toy", {"size": 3})]
    assert [(one.name, one.options) for one in sources_of(recipe, "toy", "unseen")] == [("toy", {})]
    assert sources_of(recipe, None, "unseen") == recipe.data.sources


def test_two_samples_of_one_id_are_refused(run, samples, augmented):
    samples[5] = replace(samples[5], id=samples[2].id)
    with pytest.raises(DataError, match=f"two samples have the id '{samples[2].id}'.*give each its own"):
        evaluate_run(run, augmented=augmented, full=True)
