"""Training with packed rows: the weights of unpacked ones, with whatever else a stage does to the host's layers."""

import pytest
import test_training_conversations as conversations
import tiny
from safetensors.torch import load_file
from test_two_processes import DESCENT, PARTS
from torchrun import torchrun

from moai.plugins import registry
from moai.training.batches import AnswerBatches
from moai.training.log import read_log
from moai.training.trainer import train

TOLERANCE = 2e-5  # of weights, after steps whose gradients are sums of the same terms in another order
CHECKPOINTED = {**DESCENT, "activation_checkpointing": True}
LORA = {**PARTS, "host": {"rate": 0.05, "lora": 2}}


def recipe(parts=PARTS, mixer=None, **training):
    """Two stages over rows of every make-up, a quarter of them text alone; batches of 16 have about four of these."""
    shared = {"batch_size": 16, "threads": 1, "monitor_every": 100, "trainer": DESCENT, "schedule": {"warmup": 1}}
    stages = [
        tiny.stage("modules", 3, routing="random_module", train=parts),
        tiny.stage("gates", 3, train={**parts, "gates": 0.05}),
    ]
    changes = {"training": {**shared, **training}, "stages": stages, "data": tiny.data("mixed")}
    return {**changes, "mixer": mixer} if mixer else changes


CASES = {
    "plain": recipe(perception_dropout=0.5),
    "checkpointed": recipe(trainer=CHECKPOINTED),
    "lora": recipe(LORA, trainer=CHECKPOINTED, accumulation=2),
    "answers": recipe(trainer=CHECKPOINTED, mixer={"answer_tokens": True}),
}
SHARDED = {
    "sharded": recipe(trainer={**DESCENT, "fsdp": True}),
    "sharded lora": recipe(LORA, trainer={**CHECKPOINTED, "fsdp": True}, accumulation=2),
    "sharded answers": recipe(trainer={**CHECKPOINTED, "fsdp": True}, mixer={"answer_tokens": True}),
    "sharded host": recipe({**PARTS, "host": 0.01}, trainer={**CHECKPOINTED, "fsdp": True}),
}


def packed(changes):
    return {**changes, "training": {**changes["training"], "packing": True}}


@pytest.fixture(autouse=True)
def mixed(monkeypatch):
    monkeypatch.setitem(registry().datasets, "mixed", conversations.dataset)


@pytest.fixture
def documents(monkeypatch):
    """Count the documents of packed rows that are trained on."""
    counts, collate = [], AnswerBatches.__call__

    def counting(self, shares):
        batch = collate(self, shares)
        if "document_ids" in batch:
            counts.append(int(batch["document_ids"].max()))
        return batch

    monkeypatch.setattr(AnswerBatches, "__call__", counting)
    return counts


def assert_equal(one, two):
    """Compare the weights and the losses of two runs; a loss of its own in each step says that weights changed."""
    weights, others = (load_file(run / "moai.safetensors") for run in (one, two))
    assert weights.keys() == others.keys()
    assert max(float((weights[name] - others[name]).abs().max()) for name in weights) < TOLERANCE
    logs = [[line["loss"] for line in read_log(run)] for run in (one, two)]
    assert logs[0] == pytest.approx(logs[1], abs=1e-4) and len(set(logs[0])) == 6


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_packed_rows_end_with_the_weights_of_unpacked_ones(name, documents, tmp_path):
    alone = train(tiny.recipe(**CASES[name]), tmp_path / "alone")
    assert documents == []
    together = train(tiny.recipe(**packed(CASES[name])), tmp_path / "together")
    assert max(documents) >= 3, "rows of several documents"
    assert_equal(alone, together)


@pytest.mark.slow
def test_two_processes_with_shards_end_with_the_weights_of_unpacked_rows_in_one(tmp_path):
    jobs = [{"name": name, "changes": packed(changes)} for name, changes in SHARDED.items()]
    (tmp_path / "both").mkdir()
    done = torchrun(tmp_path / "both", jobs)
    assert done.returncode == 0, done.stderr[-3000:]
    for name, changes in SHARDED.items():
        given = {name: value for name, value in changes["training"]["trainer"].items() if name != "fsdp"}
        alone = {**changes, "training": {**changes["training"], "trainer": given}}
        assert_equal(train(tiny.recipe(**alone), tmp_path / name), tmp_path / "both" / name)
