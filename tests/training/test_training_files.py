"""Training on files of one's own: good rows train, bad ones stop the run or are left out and written down."""

from __future__ import annotations

import json

import pytest
import tiny

import moai
from moai.errors import CheckpointError, DataError, MoaiError
from moai.training.callbacks import StepSeed
from moai.training.trainer import train


@pytest.fixture
def files(tmp_path):
    """200 pictures, and a function that writes rows about them and returns a recipe of four steps."""
    folder = tmp_path / "photos"
    folder.mkdir()
    rows = []
    for number in range(200):
        color = tiny.COLORS[number % 4]
        tiny.picture(color).save(folder / f"{number}.png")
        rows.append({"image": f"{number}.png", "question": "What color is the shape?", "answer": color})

    def recipe(*more, trainer=None, perception=None, **data):
        (folder / "photos.jsonl").write_text("\n".join(map(json.dumps, [*rows, *more])))
        source = {"format": "jsonl", "path": str(folder / "photos.jsonl"), "hold_out": {"validation": 0.1}}
        training = {"trainer": trainer or {}}
        stages = [tiny.stage("modules", 2, routing="random_module"), tiny.stage("gates", 2, continues=True)]
        return tiny.recipe(
            data={"sources": [source], "validation_limit": 4, **data},
            stages=stages,
            training=training,
            perception=perception or {},
        )

    return recipe


def test_two_hundred_pictures_train_and_answer(files, tmp_path):
    run = train(files(), tmp_path / "run")
    assert isinstance(moai.load(run).ask(tiny.picture("red"), "What color is the shape?").text, str)
    assert not (run / "quarantine.jsonl").exists()


def test_a_missing_image_stops_the_run_before_the_first_step_and_leaves_no_folder(files, tmp_path):
    with pytest.raises(DataError, match=r"photos.jsonl:201: image .*gone.png is missing"):
        train(files({"image": "gone.png", "question": "?", "answer": "a"}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    "damage",
    [lambda path: path.write_bytes(b""), pytest.param(lambda path: path.unlink(), marks=pytest.mark.slow)],
    ids=["empty", "gone"],
)
def test_an_image_that_is_gone_or_empty_in_the_middle_of_a_run_is_named(files, tmp_path, monkeypatch, damage):
    recipe = files(perception={"experts": []})
    begin = StepSeed.on_step_begin

    def damaged(self, args, state, control, **kwargs):
        if state.global_step == 1:
            for path in (tmp_path / "photos").glob("*.png"):
                damage(path)
        return begin(self, args, state, control, **kwargs)

    monkeypatch.setattr(StepSeed, "on_step_begin", damaged)
    with pytest.raises(MoaiError, match=r"^[^\n]*\d+\.png[^\n]*$"):
        train(recipe, tmp_path / "run")


def test_a_tolerated_row_is_left_out_and_written_down(files, tmp_path, capsys):
    bad = [{"image": "gone.png", "question": "?", "answer": "a"}, {"question": "Is it red? " * 100, "answer": "no"}]
    run = train(files(*bad, tolerate=0.05), tmp_path / "run")
    lines = [json.loads(line) for line in (run / "quarantine.jsonl").read_text().splitlines()]
    assert [line["line"] for line in lines] == [201, 202] and "is missing" in lines[0]["reason"]
    assert "2 bad rows are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match=r"1 of \d+ rows are bad so far, more than data.tolerate allows \(0.001\)"):
        train(files(*bad, tolerate=0.001), tmp_path / "other")


@pytest.mark.slow
def test_turns_that_do_not_fit_are_dropped_and_counted(files, tmp_path, capsys):
    turns = [{"role": role, "content": "red " * 10} for _ in range(20) for role in ("user", "assistant")]
    train(files({"id": "long", "messages": turns}, too_long="drop_turns"), tmp_path / "run")
    assert "turns of 1 samples are left out" in capsys.readouterr().err
    with pytest.raises(DataError, match="photos.jsonl:201: the prompt has"):
        train(files({"id": "long", "messages": turns}), tmp_path / "other")


@pytest.mark.slow
def test_processes_of_the_loader_leave_the_same_rows_out_and_write_each_once(files, tmp_path, capsys):
    def damage():
        for number in range(0, 200, 3):
            (tmp_path / "photos" / f"{number}.png").write_bytes(b"")

    runs = []
    for workers in (0, 2):
        recipe = files(tolerate=0.9, trainer={"dataloader_num_workers": workers})
        damage()
        runs.append(train(recipe, tmp_path / f"run-{workers}"))
    alone, several = ((run / "quarantine.jsonl").read_text().splitlines() for run in runs)
    assert len(set(alone)) == len(alone) > 3 and len(several) == len(set(several)) and set(alone) <= set(several)
    assert (runs[0] / "moai.safetensors").read_bytes() == (runs[1] / "moai.safetensors").read_bytes()
    assert f"{len(several)} bad rows are left out" in capsys.readouterr().err
    assert not list(runs[1].glob("*.lock"))
    few = files(tolerate=0.009, trainer={"dataloader_num_workers": 2})
    damage()
    with pytest.raises(DataError, match=r"^\d of \d+ rows are bad so far, more than [^\n]*$"):
        train(few, tmp_path / "few")


def test_a_run_goes_on_with_the_same_rows_only(files, tmp_path):
    run = train(files(), tmp_path / "run")
    train(files(), run, resume=True)
    more = [{"image": f"{n}.png", "question": "Is it new?", "answer": "yes"} for n in range(5)]
    with pytest.raises(CheckpointError, match="the training data is not what it was when .*restore it, or train in"):
        train(files(*more), run, resume=True)
