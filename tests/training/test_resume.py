"""Kill -9 at the worst moments, then ``resume``: losses and weights equal those of an uninterrupted run exactly.

Bits may be expected: the same kernels run on one machine with the recipe's number of threads, the frozen weights are
views of the same files, and what a checkpoint holds is copied to where torch puts its own (``test_alignment``).
"""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import moai
from moai.errors import MoaiError
from moai.training.log import read_log
from moai.training.trainer import train

TESTS = Path(__file__).parents[1]
# Where the process dies: name -> what is broken off there. Checkpoints are written after steps 2, 3, 4 and 6.
MOMENTS = ("early", "between", "logging", "saving", "renaming", "finishing", "publishing")

# A process of its own imports everything once and forks one child per moment; each child trains until it is killed.
CHILD = '''
import json, os, signal, sys
from pathlib import Path
import tiny
import moai.training.checkpoints, moai.training.log, moai.training.run, moai.training.trainer
from moai.model.modeling import MoaiForConditionalGeneration
from moai.training.progress import Progress

assets, root, moments = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]


def die(*args, **kwargs):
    os.kill(os.getpid(), signal.SIGKILL)


def nth(count, function, instead):
    """Call ``function``; the ``count``-th time, ``instead``."""
    calls = []

    def wrapped(*args, **kwargs):
        calls.append(1)
        return (instead if len(calls) == count else function)(*args, **kwargs)

    return wrapped


def half_a_line(log, **values):
    with log.path.open("a") as file:
        file.write(json.dumps(values)[:25])
    die()


def half_a_file(tensors, path):
    whole = save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:1000])
    die()


def prepare(moment):
    checkpoint, log, run = moai.training.checkpoints, moai.training.log, moai.training.run
    run.draw_curves = lambda *args: None
    if moment in ("early", "between"):
        step = {"early": 1, "between": 5}[moment]
        run.headline = nth(step, run.headline, die)
    elif moment == "logging":
        log.TrainingLog.write = nth(5, log.TrainingLog.write, half_a_line)
    elif moment == "saving":
        checkpoint.save_file = nth(2, checkpoint.save_file, half_a_file)
    elif moment == "renaming":
        Path.rename = nth(2, Path.rename, die)
    elif moment == "finishing":
        run.draw_curves = die
    elif moment == "publishing":
        MoaiForConditionalGeneration.save_pretrained = die


save_file = moai.training.checkpoints.save_file
tiny.register()
for moment in moments:
    child = os.fork()
    if child == 0:
        os.environ["MOAI_CACHE"] = str(root / moment / "cache")
        prepare(moment)
        moai.training.trainer.train(tiny.recipe(assets), root / moment / "run")
        os._exit(0)
    print(moment, os.WTERMSIG(os.waitpid(child, 0)[1]))
'''


@pytest.fixture(scope="module")
def killed(tmp_path_factory):
    """A folder with one killed run per moment, and how each process ended."""
    root = tmp_path_factory.mktemp("killed")
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(TESTS), os.environ.get("PYTHONPATH", "")])}
    command = [sys.executable, "-c", CHILD, str(tiny.assets()), str(root), *MOMENTS]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)  # against a hang
    assert done.returncode == 0, done.stderr[-2000:]
    return root, dict(line.split() for line in done.stdout.splitlines())


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """The same run without a kill."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(tmp_path_factory.mktemp("cache")))
        tiny.register()
        return train(tiny.recipe(), tmp_path_factory.mktemp("whole") / "run")


def losses(run):
    """The log without the clock."""
    return [{name: value for name, value in line.items() if name != "seconds"} for line in read_log(run)]


@pytest.mark.parametrize(
    "moment", [moment if moment == "between" else pytest.param(moment, marks=pytest.mark.slow) for moment in MOMENTS]
)
def test_a_killed_run_ends_as_if_it_had_not_been(killed, uninterrupted, moment):
    root, ended = killed
    run = root / moment / "run"
    assert ended[moment] == str(int(signal.SIGKILL)), "the process was to be killed in the middle of training"
    if moment != "publishing":  # the processor is saved first and brings a manifest, which lists no weights yet
        assert not (run / "manifest.json").exists()
    with pytest.raises(MoaiError):
        moai.load(run, device="cpu")
    before = losses(run)
    assert len(before) < 6 or moment in ("finishing", "publishing")

    assert train(tiny.recipe(), run, resume=True) == run
    assert losses(run) == losses(uninterrupted)
    assert (run / "moai.safetensors").read_bytes() == (uninterrupted / "moai.safetensors").read_bytes()
    assert json.loads((run / "manifest.json").read_text()) == json.loads((uninterrupted / "manifest.json").read_text())
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000006"]
    assert not [path for path in run.rglob("*.part")]
    moai.load(run, device="cpu")


@pytest.mark.slow
def test_a_run_can_be_cut_more_than_once(tmp_path, uninterrupted, monkeypatch):
    steps = tiny.interrupt(monkeypatch, 2, 5)
    for resume in (False, True):
        with pytest.raises(KeyboardInterrupt):
            train(tiny.recipe(), tmp_path / "run", resume=resume)
    train(tiny.recipe(), tmp_path / "run", resume=True)
    assert steps == [0, 1, 2, 2, 3, 4, 5, 4, 5]
    assert losses(tmp_path / "run") == losses(uninterrupted)
    name = "moai.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (uninterrupted / name).read_bytes()
