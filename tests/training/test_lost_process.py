"""One of two processes is killed: torchrun ends the other, which says so in a sentence, and the run goes on in one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny
from safetensors.torch import load_file

from moai.training.checkpoints import load_checkpoint
from moai.training.processes import naming_lost_processes
from moai.training.trainer import train

CHILD = """
import os, signal, sys
import tiny
from moai.cli.main import cli
from moai.training import run
from moai.training.callbacks import StepSeed

tiny.register()
run.draw_curves = lambda *args: None
begin = StepSeed.on_step_begin


def beginning(self, args, state, control, **kwargs):
    if state.global_step == 5 and self.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    return begin(self, args, state, control, **kwargs)


StepSeed.on_step_begin = beginning
cli(["train", *sys.argv[1:]])
"""
CHANGES = {"training": {"trainer": {"optim": "sgd", "fsdp": True}}}


@pytest.mark.slow
def test_a_killed_process_ends_the_run_with_a_sentence(tmp_path):
    (tmp_path / "child.py").write_text(CHILD)
    (tmp_path / "recipe.yaml").write_text(tiny.recipe(**CHANGES).to_yaml())
    tests = os.pathsep.join(str(Path(__file__).parents[up]) for up in (0, 1))
    environment = {**os.environ, "PYTHONPATH": tests, "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    run = tmp_path / "run"
    done = subprocess.run(
        [*command, "--", tmp_path / "child.py", tmp_path / "recipe.yaml", "--run", run],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,  # against a hang
    )
    assert done.returncode != 0, done.stderr
    said = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(said) == 1, done.stderr[-4000:]
    assert "another process of this run has ended" in said[0] and f"--resume --run {run}" in said[0]
    assert "Signal 9 (SIGKILL)" in done.stderr, "torchrun names what was killed"
    assert load_checkpoint(run).step == 4
    train(tiny.recipe(**CHANGES), run, resume=True)
    one, two = (load_file(p / "moai.safetensors") for p in (run, train(tiny.recipe(**CHANGES), tmp_path / "whole")))
    assert max(float((one[name] - two[name]).abs().max()) for name in one) < 2e-5


def test_other_errors_stay_as_they_are(tmp_path):
    with pytest.raises(RuntimeError, match="connection reset by peer, of a data set's own server"):
        with naming_lost_processes(tmp_path):
            raise RuntimeError("connection reset by peer, of a data set's own server")
