"""FSDP2 in two processes: the weights of one process, checkpoints that any number of processes goes on from, faults."""

import json

import pytest
import test_training_conversations as conversations
import tiny
from safetensors.torch import load_file
from test_two_processes import ALIGN, DESCENT, PARTS
from torchrun import torchrun

import moai
from moai.errors import RecipeError
from moai.plugins import registry
from moai.training.checkpoints import load_checkpoint
from moai.training.log import read_log
from moai.training.trainer import train

SHARDED = {**DESCENT, "fsdp": True}
TOLERANCE = 2e-5  # of weights, after steps whose gradients are sums of the same terms in another order
STOP = 11  # a step of the last stage


def everything(trainer):
    """Random modules, unequal last batches, accumulation, checkpointing, supervision and adapters of the host."""
    shared = {"batch_size": 5, "threads": 1, "monitor_every": 4, "checkpoint_every": 4,
              "attention_supervision": 0.3, "schedule": {"warmup": 1},
              "trainer": {**trainer, "activation_checkpointing": True}}  # fmt: skip
    parts = {**PARTS, "gates": 0.05, "host": {"rate": 0.05, "lora": 2}}
    stages = [
        ALIGN,
        tiny.stage("modules", 6, routing="random_module", accumulation=2, train=PARTS),
        tiny.stage("gates", 5, accumulation=2, train=parts),
    ]
    return {"training": shared, "stages": stages, "mixer": {"null_token": True}}


def texts(trainer):
    """Batches of two samples, half of them without any image, and a host that trains whole."""
    shared = {"batch_size": 2, "threads": 1, "monitor_every": 100, "trainer": trainer, "schedule": {"warmup": 1}}
    train = {**PARTS, "host": 0.01, "vision": 0.01}
    stages = [tiny.stage("modules", 3, routing="random_module"), tiny.stage("all", 4, train=train)]
    return {"training": shared, "stages": stages, "data": tiny.data("mixed")}


RECIPES = {
    "everything": everything(DESCENT), "everything sharded": everything(SHARDED), "texts sharded": texts(SHARDED),
    "in context sharded": {
        "training": {"trainer": {**SHARDED, "fsdp_config": {"reshard_after_forward": False}}},
        "perception": {"context_layer": 1},
    },
}  # fmt: skip
ENDS = {  # what happens to one of two -> what both end with
    "asked": "SystemExit: 143",
    "asked sharded": "SystemExit: 143",
    "not finite": "TrainingError: stage 'modules', step 2: loss is nan; its samples are in",
    "not finite sharded": "TrainingError: stage 'modules', step 2: loss is nan; its samples are in",
}


def trainer_of(name):
    return SHARDED if name.endswith("sharded") else DESCENT


@pytest.fixture(scope="module")
def one(tmp_path_factory):
    """Train a recipe in one process, once: the folder of the run by name."""
    root, found = tmp_path_factory.mktemp("one"), {}

    def trained(name):
        if name not in found:
            found[name] = train(tiny.recipe(**RECIPES[name]), root / name)
        return found[name]

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(registry().datasets, "mixed", conversations.dataset)
        yield trained


@pytest.fixture(scope="module")
def both(tmp_path_factory):
    """A folder with what two processes trained, or were kept from training."""
    root = tmp_path_factory.mktemp("both")
    jobs = [{"name": name, "changes": changes} for name, changes in RECIPES.items()]
    for name in ENDS:
        fault = {"signal": ["SIGTERM", STOP]} if name.startswith("asked") else {"nan": 4}
        jobs.append({"name": name, "changes": everything(trainer_of(name)), "ends": True, **fault})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(root / "cache"))
        tiny.register()
        tiny.draw_nothing(patch)
        for name in ("resumed", "resumed sharded"):
            with pytest.MonkeyPatch.context() as stopping, pytest.raises(KeyboardInterrupt):
                tiny.interrupt(stopping, STOP)
                train(tiny.recipe(**everything(trainer_of(name))), root / name)
            jobs.append({"name": name, "changes": everything(trainer_of(name)), "resume": True})
    done = torchrun(root, jobs)
    assert done.returncode == 0, done.stderr[-3000:]
    return root


def distance(one, two):
    """The largest difference of two runs' weights."""
    one, two = (load_file(run / "moai.safetensors") for run in (one, two))
    assert one.keys() == two.keys()
    return max(float((one[key] - two[key]).abs().max()) for key in one)


@pytest.mark.slow
@pytest.mark.parametrize("name", RECIPES)
def test_two_processes_end_with_the_weights_of_one(both, one, name):
    assert distance(one(name), both / name) < TOLERANCE
    logs = [read_log(run) for run in (one(name), both / name)]
    for key in ("loss", "attention", "gradient_norm", "loss_on", "loss_shuffled", "spread"):
        values = [[line[key] for line in lines if key in line] for lines in logs]
        assert values[0] == pytest.approx(values[1], abs=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resumed", "resumed sharded"])
def test_two_processes_go_on_where_one_stopped(both, one, name):
    steps = [line["step"] for line in read_log(both / name)]
    assert steps == list(range(1, 15))
    assert distance(one("everything"), both / name) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ["asked", "asked sharded"])
def test_one_process_goes_on_where_two_were_asked_to_end(both, one, name):
    assert load_checkpoint(both / name).step == STOP + 1
    run = train(tiny.recipe(**everything(trainer_of(name))), both / name, resume=True)
    assert distance(one("everything"), run) < TOLERANCE


@pytest.mark.slow
@pytest.mark.parametrize("name", ENDS)
def test_both_end_with_what_happened_to_one(both, name):
    for rank in (0, 1):
        assert (both / f"{name}.{rank}").read_text().startswith(ENDS[name])
    if name.startswith("not finite"):
        assert json.loads((both / name / "failed" / "step.json").read_text())["step"] == 2
        assert load_checkpoint(both / name).step == 4


@pytest.mark.slow
def test_what_was_sharded_answers(both):
    assert moai.load(both / "texts sharded").ask(tiny.picture("red"), "What color is the shape?").failures == ()


ATTENTION_LAST = [tiny.stage("gates", train={"connector": 0.1}), ALIGN]
REFUSED = {
    "a quantized host cannot be sharded": {"host": {"quantization": "nf4"}},
    "does not go with training.trainer.torch_compile": {"training": {"trainer": {"fsdp": True, "torch_compile": True}}},
    "does not go with training.trainer.fp16": {"training": {"trainer": {"fsdp": True, "fp16": True}}},
    "stage 'align' has the attention objective, .* put it first": {"stages": ATTENTION_LAST},
    "trains the host, .* set perception.context_layer to null": {
        "stages": [tiny.stage(train={"host": 0.1})], "perception": {"context_layer": 1},
    },
    "fsdp is 'full_shard'; set it to true or false": {"training": {"trainer": {"fsdp": "full_shard"}}},
    "fsdp_config has version, reshard_after_forward; leave cpu_offload out": {
        "training": {"trainer": {"fsdp": True, "fsdp_config": {"cpu_offload": True}}}
    },
    "fsdp_config.version cannot be 1; leave it out": {
        "training": {"trainer": {"fsdp": True, "fsdp_config": {"version": 1}}}
    },
}  # fmt: skip


@pytest.mark.parametrize("said", REFUSED)
def test_what_cannot_be_sharded_is_refused_before_anything_is_loaded(tmp_path, monkeypatch, said):
    monkeypatch.setattr("moai.training.run.build", lambda recipe: pytest.fail("the model was loaded"))
    changes = {"training": {"trainer": {"fsdp": True}}, **REFUSED[said]}
    with pytest.raises(RecipeError, match=f"training.trainer.*{said}"):
        train(tiny.recipe(**changes), tmp_path / "run")
    assert not (tmp_path / "run").exists()
