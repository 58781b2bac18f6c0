"""Two gloo processes train one run: step 1's dice leave modules without gradients, and both end with equal weights."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import tiny

import moai
from moai.training.log import read_log

pytestmark = pytest.mark.slow  # starts processes that train

CHILD = """
import json, sys
from pathlib import Path
import torch, tiny
from safetensors.torch import save_file
from moai.training import trainer as training

tiny.register()
assets, out = Path(sys.argv[1]), Path(sys.argv[2])
finish = training._Run._finish


def keep(self):
    rank = self.accelerator.process_index
    state = {n: p.detach().clone() for n, p in self.model.adapter_parameters().items()}
    save_file(state, out / f"rank{rank}.safetensors")
    return finish(self)


training._Run._finish = keep
training.train(tiny.recipe(assets, **json.loads(sys.argv[3])), out / "run")
"""
BLIND = {"steps": 3, "routing": "random_module", "image_dropout": 1.0, "train_connector": False}
PLAN = {"attention_supervision": 0.3, "align": {"steps": 3}, "step1": BLIND}
SUPERVISED = {"mixer": {"null_token": True}, "training": PLAN}


@pytest.mark.parametrize("changes", [{}, SUPERVISED], ids=["plain", "supervised"])
def test_two_processes_end_with_equal_weights(tmp_path, changes):
    script = tmp_path / "child.py"
    script.write_text(CHILD)
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "MOAI_CACHE": str(tmp_path / "cache"),
                   "OMP_NUM_THREADS": "1", "ACCELERATE_USE_CPU": "true", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", str(script)]
    done = subprocess.run(
        [*command, str(tiny.assets()), str(tmp_path), json.dumps(changes)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,  # against a hang
    )
    assert done.returncode == 0, done.stderr[-3000:]
    ranks = [(tmp_path / f"rank{rank}.safetensors").read_bytes() for rank in (0, 1)]
    assert ranks[0] == ranks[1]  # bits: both ranks start from the same file and apply the same averaged gradients
    steps = [line["step"] for line in read_log(tmp_path / "run")]
    assert steps == list(range(1, len(steps) + 1)) and len(steps) == 6
    assert json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert moai.load(tmp_path / "run").ask(tiny.picture("red"), "What color is the shape?").failures == ()
