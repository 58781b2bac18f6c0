"""Two processes on one machine: the weights of one process with the same batches, whatever falls to each of the two."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import test_training_conversations as conversations
import tiny
from safetensors.torch import load_file

import moai
from moai.plugins import registry
from moai.training.log import read_log
from moai.training.trainer import train

pytestmark = pytest.mark.slow

CHILD = """
import json, sys
from pathlib import Path
import tiny
import test_training_conversations as conversations
from moai.plugins import registry
from moai.training import run, trainer

tiny.register()
registry().datasets["mixed"] = conversations.dataset
run.draw_curves = lambda *args: None
assets, out = Path(sys.argv[1]), Path(sys.argv[2])
for name, changes in json.loads(sys.argv[3]).items():
    trainer.train(tiny.recipe(assets, **changes), out / name)
"""

# Plain descent, so that weights differ by as little as gradients do: Adam turns a gradient of nothing into a step.
DESCENT = {"optim": "sgd"}
STEPS = 6  # with batches of five of 24 samples the fifth has four, so that shares are unequal
PARTS = {"connector": 0.05, "compressor": 0.05, "mixers": 0.05}


def recipe(parts=PARTS, **training):
    """Changes of the tiny recipe: MoAI's two steps with batches of an odd size."""
    shared = {"batch_size": 5, "threads": 1, "monitor_every": 100, "trainer": DESCENT, "schedule": {"warmup": 1}}
    stages = [
        tiny.stage("modules", STEPS, routing="random_module", train=parts),
        tiny.stage("gates", STEPS, continues=True, train={**parts, "gates": 0.05}),
    ]
    return {"training": {**shared, **training}, "stages": stages}


ALIGN = tiny.stage("align", 3, objective="attention", train={"mixers": 0.05}, batch_size=5)
SUPERVISED = recipe(attention_supervision=0.3)
CASES = {
    "plain": recipe(),
    "accumulated": recipe(accumulation=2),
    "checkpointed": recipe(trainer={**DESCENT, "activation_checkpointing": True}),
    "supervised": {**SUPERVISED, "stages": [ALIGN, *SUPERVISED["stages"]], "mixer": {"null_token": True}},
    "lora": recipe({**PARTS, "host": {"rate": 0.05, "lora": 2}}),
    # Batches of two samples, half of them without any image: some processes get none in some steps.
    "without images": {**recipe(batch_size=2), "data": tiny.data("mixed")},
    # Batches of one sample: the other process has none.
    "without samples": recipe(batch_size=1),
}


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder with a run of two processes per case."""
    root = tmp_path_factory.mktemp("two")
    (root / "child.py").write_text(CHILD)
    paths = os.pathsep.join(str(Path(__file__).parents[up]) for up in (0, 1))
    environment = {**os.environ, "PYTHONPATH": paths, "MOAI_CACHE": str(root / "cache"),
                   "OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}  # fmt: skip
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*command, str(root / "child.py"), str(tiny.assets()), str(root), json.dumps(CASES)],
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,  # against a hang
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return root


@pytest.mark.parametrize("name", CASES)
def test_two_processes_end_with_the_weights_of_one(both, tmp_path, monkeypatch, name):
    monkeypatch.setitem(registry().datasets, "mixed", conversations.dataset)
    alone = train(tiny.recipe(**CASES[name]), tmp_path / "run")
    one, two = (load_file(run / "moai.safetensors") for run in (alone, both / name))
    assert one.keys() == two.keys()
    moved = max(float((one[key] - two[key]).abs().max()) for key in one)
    assert moved < 2e-5
    losses = [[line.get("loss", line.get("attention")) for line in read_log(run)] for run in (alone, both / name)]
    assert losses[0] == pytest.approx(losses[1], abs=1e-4)


def test_what_two_processes_trained_answers(both):
    assert moai.load(both / "plain").ask(tiny.picture("red"), "What color is the shape?").failures == ()
