"""Trainings in two processes of one machine, started by torchrun: what the tests of several processes stand on."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import tiny

CHILD = '''
import json, os, signal, sys
from pathlib import Path
import pytest
import tiny
import test_training_conversations as conversations
from moai.plugins import registry
from moai.training import run, trainer
from moai.training.callbacks import StepSeed
from moai.training.stage_trainer import StageTrainer

patch = pytest.MonkeyPatch()
tiny.register()
registry().datasets["mixed"] = conversations.dataset
run.draw_curves = lambda *args: None
rank, root = int(os.environ["RANK"]), Path(sys.argv[1])


def signalled(name, step):
    """Let the second process get a signal where a step begins."""
    begin = StepSeed.on_step_begin

    def beginning(self, args, state, control, **kwargs):
        if state.global_step == step and rank == 1:
            os.kill(os.getpid(), getattr(signal, name))
        return begin(self, args, state, control, **kwargs)

    patch.setattr(StepSeed, "on_step_begin", beginning)


def without_number(step):
    """Let the second process's loss be no number in a step."""
    compute = StageTrainer.compute_loss

    def computing(self, *args, **kwargs):
        loss = compute(self, *args, **kwargs)
        if self.state.global_step == step and rank == 1:
            self.values = {name: value * float("nan") for name, value in self.values.items()}
            loss = loss * float("nan")
        return loss

    patch.setattr(StageTrainer, "compute_loss", computing)


for job in json.loads((root / "jobs.json").read_text()):
    with pytest.MonkeyPatch.context() as patch:
        if "signal" in job:
            signalled(*job["signal"])
        if "nan" in job:
            without_number(job["nan"])
        made = tiny.recipe(Path(sys.argv[2]), **job["changes"])
        try:
            trainer.train(made, root / job["name"], resume=job.get("resume", False))
        except (KeyboardInterrupt, SystemExit, Exception) as error:
            if not job.get("ends"):
                raise
            (root / f"{job['name']}.{rank}").write_text(f"{type(error).__name__}: {error}")
'''


def torchrun(root: Path, jobs: list[dict], timeout: int = 900) -> subprocess.CompletedProcess:
    """Train jobs one after another in two processes, each into a folder of ``root``.

    Args:
        root: a folder.
        jobs: ``name`` and ``changes`` of the tiny recipe; ``resume``; ``signal``, a signal's name and the step where
            the second process gets it; ``nan``, a step where its loss is no number; ``ends``: an error is written down.
        timeout: seconds, against a hang.
    """
    (root / "child.py").write_text(CHILD)
    (root / "jobs.json").write_text(json.dumps(jobs))
    paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (0, 1))
    environment = {**os.environ, "PYTHONPATH": paths, "MOAI_CACHE": str(root / "cache"),
                   "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    return subprocess.run(
        [*command, str(root / "child.py"), str(root), str(tiny.assets())],
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
    )
