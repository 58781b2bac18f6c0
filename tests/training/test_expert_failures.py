"""Training and evaluation with an expert that fails or is too slow: for most images they stop, for some they say so."""

from __future__ import annotations

import json
import threading

import pytest
import tiny
import yaml
from transformers import AutoProcessor

from moai.answering import load
from moai.cli.ask import choose_experts
from moai.data.perceive import perceive_without
from moai.errors import ExpertError
from moai.evaluation.evaluate import evaluate_run
from moai.expert import Expert
from moai.model.processor.processor import MoaiProcessor
from moai.perception.running.perceiver import Perceiver
from moai.plugins import registry
from moai.training import facts
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import Perception, TextLine

BOTH = ["tiny-panoptic", "reader"]


class Reader(Expert):
    """Reads ``word``; ``fails`` says for which of its images, by their number, and ``waits`` where it is too slow."""

    name, role, version = "reader", "ocr", "1"
    seen = 0
    free = threading.Event()

    def perceive(self, images, context):
        return [self.read() for _ in images]

    def read(self):
        number = Reader.seen
        Reader.seen += 1
        if self.fails(number):
            raise ValueError("out of ink")
        if self.waits(number):
            self.free.wait(20)
        return Perception(texts=(TextLine("word", 0.9),))

    def fails(self, number):
        return False

    def waits(self, number):
        return False


@pytest.fixture(autouse=True)
def reader(monkeypatch):
    monkeypatch.setitem(registry().experts, "reader", Reader)
    monkeypatch.setattr(Reader, "seen", 0)
    monkeypatch.setattr(Reader, "free", threading.Event())
    tiny.draw_nothing(monkeypatch)
    yield
    Reader.free.set()


def recipe(steps=6, **perception):
    """Six steps use all 8 images of the training split, which are those of validation, too."""
    about = {"experts": BOTH, **perception}
    return tiny.recipe(perception=about, stages=[tiny.stage(steps=steps)], evaluation={"limit": None})


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A run whose experts have 7.5 seconds for an image."""
    tiny.register()
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry().experts, "reader", Reader)
        patch.setenv("MOAI_CACHE", str(tmp_path_factory.mktemp("cache")))
        tiny.draw_nothing(patch)
        return train(recipe(1, time_limit=7.5), tmp_path_factory.mktemp("runs") / "run")


def test_training_stops_where_an_expert_fails_for_most_images_and_leaves_nothing(tmp_path, monkeypatch):
    monkeypatch.setattr(Reader, "fails", lambda self, number: True)
    with pytest.raises(ExpertError) as error:
        train(recipe(), tmp_path / "run")
    assert str(error.value) == (
        "expert 'reader' gave nothing for 8 of 8 images (ValueError: out of ink); raise perception.time_limit where "
        "it is slow, make it work (`moai doctor` says what is missing), or leave it out of perception.experts"
    )
    assert not (tmp_path / "run").exists(), "the mended recipe can take the folder"


def test_training_stops_where_an_expert_is_too_slow(tmp_path, monkeypatch):
    monkeypatch.setattr(Reader, "waits", lambda self, number: True)
    with pytest.raises(ExpertError, match=r"'reader' gave nothing for 8 of 8 images .gave no result within 0.02 s"):
        train(recipe(time_limit=0.02), tmp_path / "run")


@pytest.mark.slow
def test_some_images_without_an_expert_are_a_counted_warning(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Reader, "fails", lambda self, number: number % 4 == 0)
    run = train(recipe(), tmp_path / "run")
    assert len(read_log(run)) == 6
    assert "expert 'reader' gave nothing for" in caplog.text and "of 8 images: ValueError: out of ink" in caplog.text


@pytest.mark.slow
def test_an_expert_that_is_late_once_is_used_for_all_images(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(Reader, "waits", lambda self, number: number == 3)
    train(recipe(time_limit=0.1), tmp_path / "run")
    assert "gave nothing" not in caplog.text and "'reader' takes too long for 8 images; each is tried" in caplog.text


@pytest.mark.slow
def test_a_run_that_stops_in_its_middle_goes_on_with_more_time(tmp_path, monkeypatch):
    monkeypatch.setattr(facts, "AHEAD", 8)
    (tmp_path / "pictures").mkdir()
    with (tmp_path / "pictures" / "rows.jsonl").open("w") as rows:
        for number in range(60):
            picture = tiny.picture(tiny.COLORS[number % 4]).resize((40 + number, 40))
            picture.save(tmp_path / "pictures" / f"{number}.png")
            rows.write(json.dumps({"image": f"{number}.png", "question": "What color?", "answer": "red"}) + "\n")
    held = {"validation": 0.2, "test": 0.2}
    source = {"format": "jsonl", "path": str(tmp_path / "pictures" / "rows.jsonl"), "hold_out": held}
    data, short = {"sources": [source], "validation_limit": 2}, [tiny.stage(steps=8)]

    def of(limit):
        given = {"perception": {"experts": BOTH, "time_limit": limit}, "training": {"checkpoint_every": 1}}
        return tiny.recipe(data=data, stages=short, **given)

    monkeypatch.setattr(Reader, "waits", lambda self, number: number >= 10)  # after validation and two steps
    with pytest.raises(ExpertError, match="'reader' gave nothing for .* images.*raise perception.time_limit"):
        train(of(0.05), tmp_path / "run")
    Reader.free.set()
    train(of(30.0), tmp_path / "run", resume=True)
    assert [line["step"] for line in read_log(tmp_path / "run")] == list(range(1, 9))
    assert MoaiProcessor.from_pretrained(tmp_path / "run").time_limit == 30.0
    assert yaml.safe_load((tmp_path / "run" / "recipe.yaml").read_text())["perception"]["time_limit"] == 30.0


def limits(perceiver) -> set[float | None]:
    return {isolated.time_limit for isolated in perceiver._isolated.values()}


def test_the_recipes_limit_is_that_of_everything_that_opens_the_run(trained):
    opened, processor = load(trained), AutoProcessor.from_pretrained(trained)
    assert limits(opened.perceiver) == limits(processor.perceiver) == {7.5}
    assert limits(choose_experts(opened, "reader")) == {7.5}


def test_no_limit_is_kept_as_such(trained, tmp_path):
    processor = AutoProcessor.from_pretrained(trained)
    processor.time_limit = None
    processor.save_pretrained(tmp_path)
    assert limits(MoaiProcessor.from_pretrained(tmp_path).perceiver) == {None}
    assert recipe(time_limit=None).perception.time_limit is None


def test_an_evaluation_stops_where_an_expert_fails_for_most_images(trained, tmp_path, monkeypatch):
    monkeypatch.setattr(Reader, "waits", lambda self, number: True)
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "another"))
    with pytest.raises(ExpertError, match="'reader' gave nothing for 8 of 8 images.*longer with --time-limit"):
        evaluate_run(trained, time_limit=0.02)
    Reader.free.set()
    assert evaluate_run(trained, time_limit=20.0, conditions=["on"]).summary["n"] == 24


def test_a_condition_without_an_expert_stops_as_well(monkeypatch):
    monkeypatch.setattr(Reader, "fails", lambda self, number: True)
    with pytest.raises(ExpertError, match="'reader' gave nothing for 8 of 8 images .*; mend it"):
        perceive_without(Perceiver(BOTH), "tiny-panoptic", tiny.dataset("test"), fix="mend it")
