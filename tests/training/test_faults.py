"""What can go wrong while a run trains: it ends with a sentence, and loses nothing that was saved."""

import json
import os
import signal

import pytest
import tiny
from safetensors.torch import load_file

from moai.data.quarantine import Quarantine
from moai.errors import CheckpointError, CorpusError, RecipeError, TrainingError
from moai.plugins import registry
from moai.training.callbacks import StepSeed
from moai.training.checkpoints import load_checkpoint
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import Sample


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_its_samples(tmp_path):
    wild = dict.fromkeys(("connector", "compressor", "mixers", "gates"), 1e30)
    recipe = tiny.recipe(training={"checkpoint_every": 1, "accumulation": 2}, stages=[tiny.stage(train=wild)])
    with pytest.raises(TrainingError, match="stage 'gates', step 2: (loss|gradient norm) is (nan|inf); its samples"):
        train(recipe, tmp_path / "run")
    facts = json.loads((tmp_path / "run" / "failed" / "step.json").read_text())
    assert (facts["stage"], facts["step"], len(facts["samples"])) == ("gates", 2, 4)
    batches = [load_file(path) for path in sorted((tmp_path / "run" / "failed").glob("*.safetensors"))]
    assert [len(batch["input_ids"]) for batch in batches] == [2, 2]
    assert load_checkpoint(tmp_path / "run").step == 1
    assert [line["step"] for line in read_log(tmp_path / "run")] == [1]


@pytest.mark.slow
def test_a_full_disk_stops_the_run_and_it_goes_on_afterwards(tmp_path, monkeypatch):
    from moai.training import checkpoints

    saved = []

    def full(tensors, path):
        saved.append(path)
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        return save(tensors, path)

    save = checkpoints.save_file
    monkeypatch.setattr(checkpoints, "save_file", full)
    with pytest.raises(CheckpointError, match="the checkpoint of step 3 cannot be written .*go on with --resume"):
        train(tiny.recipe(), tmp_path / "run")
    assert load_checkpoint(tmp_path / "run").step == 2
    train(tiny.recipe(), tmp_path / "run", resume=True)
    whole = train(tiny.recipe(), tmp_path / "whole")
    name = "moai.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.slow
def test_a_process_that_is_asked_to_end_saves_first(tmp_path, monkeypatch):
    begin, handler = StepSeed.on_step_begin, signal.getsignal(signal.SIGTERM)

    def asked(self, args, state, control, **kwargs):
        if state.global_step == 4 and not (tmp_path / "asked").exists():
            (tmp_path / "asked").touch()
            os.kill(os.getpid(), signal.SIGTERM)
        return begin(self, args, state, control, **kwargs)

    monkeypatch.setattr(StepSeed, "on_step_begin", asked)
    with pytest.raises(SystemExit) as ended:
        train(tiny.recipe(training={"checkpoint_every": 100}), tmp_path / "run")
    assert ended.value.code == 143 and load_checkpoint(tmp_path / "run").step == 5
    assert signal.getsignal(signal.SIGTERM) is handler
    run = train(tiny.recipe(training={"checkpoint_every": 100}), tmp_path / "run", resume=True)
    whole = train(tiny.recipe(training={"checkpoint_every": 100}), tmp_path / "whole")
    assert (run / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()


def test_resuming_where_there_is_no_run_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="holds no run to go on with; leave --resume out, or name its folder"):
        train(tiny.recipe(), tmp_path / "run", resume=True)
    assert not (tmp_path / "run").exists()


def test_a_run_that_fails_before_its_first_checkpoint_leaves_the_folder_as_it_was(tmp_path, monkeypatch):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "notes.txt").write_text("mine")
    tiny.interrupt(monkeypatch, 1, error=OSError)
    with pytest.raises(OSError):
        train(tiny.recipe(), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["notes.txt"]
    train(tiny.recipe(), tmp_path / "run")


@pytest.mark.parametrize("there", [False, True])
def test_a_refusal_before_the_first_step_leaves_no_trace(tmp_path, monkeypatch, there):
    bad = Sample.from_question("long", tiny.png(tiny.picture("red")), "long", "red " * 999, "red", "color")
    monkeypatch.setitem(registry().datasets, "bad", lambda split, limit=None: [*tiny.dataset(split), bad])
    if there:
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "notes.txt").write_text("mine")
    written = []
    append = Quarantine._append
    monkeypatch.setattr(Quarantine, "_append", lambda self, *given: (append(self, *given), written.append(self.path)))
    changes = {"data": {**tiny.data("bad"), "tolerate": 0.5}, "perception": {"shards": str(tmp_path / "none")}}
    with pytest.raises(CorpusError):
        train(tiny.recipe(**changes), tmp_path / "run")
    assert written and not written[0].exists()
    found = [path.name for path in tmp_path.glob("run/*")]
    assert found == ["notes.txt"] if there else not (tmp_path / "run").exists()


def test_a_first_step_that_is_not_finite_leaves_its_samples_alone(tmp_path):
    wild = dict.fromkeys(("connector", "compressor", "mixers", "gates"), 1e30)
    stages = [tiny.stage(train=wild)]
    with pytest.raises(TrainingError, match="step 2: .* its samples are in"):
        train(tiny.recipe(training={"checkpoint_every": 9}, stages=stages), tmp_path / "run")
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["failed"]
    with pytest.raises(TrainingError, match="step 2"):  # and not "holds a run already"
        train(tiny.recipe(training={"checkpoint_every": 9}, stages=stages), tmp_path / "run")
