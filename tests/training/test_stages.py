"""What a stage names trains, and nothing else; what trained is saved, loads everywhere, and goes on after a kill."""

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, LlamaForCausalLM, TrainerCallback
from transformers.integrations import integration_utils

import moai
import moai.training.run
from moai.errors import HostError, RecipeError
from moai.model.parts import parts_of
from moai.plugins import registry
from moai.training.build import build
from moai.training.log import read_log
from moai.training.trainer import train

HOST = {"rate": 1e-3}
LORA = {"rate": 1e-3, "lora": 2, "targets": ["q_proj", "down_proj"]}
ADAPTERS = ("connector", "compressor", "mixers", "gates")


@pytest.fixture
def watched(monkeypatch):
    """The model that ``train`` builds, and its parameters before the first step."""
    kept = {}

    def keep(recipe):
        kept["model"], processor = build(recipe)
        tiny.disturb(kept["model"], 0.1)  # fresh mixers change nothing, so that nothing else would have a gradient
        kept["before"] = {name: p.detach().clone() for name, p in kept["model"].named_parameters()}
        kept["processor"] = processor
        return kept["model"], processor

    monkeypatch.setattr(moai.training.run, "build", keep)
    return kept


def moved(watched):
    """The parameters that training has changed."""
    after = dict(watched["model"].named_parameters())
    return {id(after[name]) for name, old in watched["before"].items() if not torch.equal(after[name], old)}


@pytest.mark.parametrize(
    ("part", "given"),
    [
        *((name, 1e-2) for name in ADAPTERS),
        ("host", HOST), ("host", LORA), ("vision", {"rate": 1e-2, "last": 1}), ("vision", 1e-2),
    ],
)  # fmt: skip
def test_a_stage_trains_what_it_names_and_nothing_else(tmp_path, watched, part, given):
    stage = tiny.stage(steps=2, image_dropout=0.0, train={part: given})
    train(tiny.recipe(stages=[stage]), tmp_path / "run")
    model = watched["model"]
    named = {id(p) for p in parts_of(model)[part].values()}
    changed = moved(watched)
    assert changed and changed <= named
    adapters = set(model.adapter_parameters())
    saved = set(load_file(tmp_path / "run" / "moai.safetensors"))
    assert saved == adapters | (set() if part in ADAPTERS else set(parts_of(model)[part]))
    if given is LORA:
        assert {name.split(".")[-4] for name in saved - adapters} == {"q_proj", "down_proj"}


@pytest.mark.parametrize("given", [HOST, LORA], ids=["whole", "lora"])
def test_a_run_whose_host_trained_loads_with_both_auto_classes(tmp_path, watched, given):
    stages = [tiny.stage("first", 2), tiny.stage("host", 2, train={"mixers": 1e-2, "host": given})]
    changes = {"mixer": {"question_context": 1.0}, "perception": {"context_layer": 1}}
    run = train(tiny.recipe(stages=stages, **changes), tmp_path / "run")
    model, processor = watched["model"].eval(), watched["processor"]
    inputs = tiny.prompt_inputs(processor, ["What color?", "Is it red?"], [tiny.seen("red"), tiny.seen("blue", "box")])
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(AutoModelForImageTextToText.from_pretrained(run)(**inputs).logits, expected)
        assert torch.equal(moai.load(run, device="cpu").model(**inputs).logits, expected)
        model.load_state_dict({name: p for name, p in watched["before"].items()}, strict=False)
        assert not torch.equal(model(**inputs).logits, expected), "nothing has trained"
    copy = tmp_path / "copy"
    AutoModelForImageTextToText.from_pretrained(run).save_pretrained(copy)
    assert (copy / "moai.safetensors").read_bytes() == (run / "moai.safetensors").read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("given", [HOST, LORA], ids=["whole", "lora"])
def test_a_host_that_trains_goes_on_exactly(tmp_path, monkeypatch, given):
    stages = [tiny.stage("first", 2, train={"host": given}), tiny.stage("second", 4)]
    recipe = tiny.recipe(stages=stages, perception={"context_layer": 2})
    whole = train(recipe, tmp_path / "whole")
    tiny.interrupt(monkeypatch, 1, 5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    assert not (tmp_path / "cut").exists(), "it had no checkpoint yet"
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    resumed = train(recipe, tmp_path / "cut", resume=True)
    assert (resumed / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()
    assert [line["loss"] for line in read_log(resumed)] == [line["loss"] for line in read_log(whole)]


@pytest.mark.slow
def test_a_fresh_optimizer_for_each_stage_unless_it_continues(tmp_path):
    """After one step Adam's moves are of one size, whatever the gradient; a second step's are not."""

    def losses(name, **second):
        stages = [tiny.stage("one", 3), tiny.stage("two", 3, **second)]
        return [line["loss"] for line in read_log(train(tiny.recipe(stages=stages), tmp_path / name))]

    apart, together = losses("apart"), losses("together", continues=True)
    assert apart[0] == together[0] and apart[4] != together[4]


def test_accumulated_gradients_are_those_of_one_large_batch(tmp_path):
    """Plain descent at rate 1, so that weights differ as gradients do."""
    rates = dict.fromkeys(ADAPTERS, 1.0)
    weights = []
    for parts in (1, 4):
        training = {"trainer": {"optim": "sgd"}, "clip": 1e6, "batch_size": 12, "attention_supervision": 0.3,
                    "accumulation": parts, "schedule": {"warmup": 1}, "threads": 1}  # fmt: skip
        recipe = tiny.recipe(training=training, stages=[tiny.stage(steps=1, train=rates)])
        weights.append(load_file(train(recipe, tmp_path / str(parts)) / "moai.safetensors"))
    scale = max(float(tensor.abs().max()) for tensor in weights[0].values())
    assert max(float((weights[0][n] - weights[1][n]).abs().max()) for n in weights[0]) < 1e-6 * max(scale, 1.0)


def test_the_rate_of_mm1_follows_from_the_hosts_size(tmp_path, watched, monkeypatch):
    from moai.training.schedule import mm1_rate
    from moai.training.stage_trainer import StageTrainer

    groups, create = [], StageTrainer.create_optimizer

    def created(self, *args):
        made = create(self, *args)
        groups.extend(self.groups)
        return made

    monkeypatch.setattr(StageTrainer, "create_optimizer", created)
    train(tiny.recipe(stages=[tiny.stage(steps=1, train={"mixers": "mm1", "gates": 1e-3})]), tmp_path / "run")
    rate = mm1_rate(sum(p.numel() for p in watched["model"].host.parameters()))
    assert [(group["lr"], group["weight_decay"]) for group in groups] == [(rate, 0.1 * rate), (1e-3, 0.0)]


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"targets": ["q_prj"], "lora": 2}, "no layer is called 'q_prj'; did you mean 'q_proj'?"),
        ({"last": 99}, "the vision encoder has .* blocks; set train.vision.last to"),
    ],
)
def test_what_the_model_does_not_have(tmp_path, changes, sentence):
    part = "vision" if "last" in changes else "host"
    with pytest.raises((HostError, RecipeError), match=sentence):
        train(tiny.recipe(stages=[tiny.stage(train={part: {"rate": 1e-3, **changes}})]), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_lora_without_peft_names_the_package(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "peft", None)
    with pytest.raises(HostError, match=r"needs the package 'peft'; pip install 'moai-vlm\[lora\]'"):
        build(tiny.recipe(stages=[tiny.stage(train={"host": LORA})]))


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"learning_rate": 1e-3}, "training.trainer.learning_rate: a recipe says this as stages.NAME.train; set that"),
        ({"output_dir": "x"}, "training.trainer.output_dir is decided by moai; leave it out"),
        (
            {"deepspeed": "zero.json"},
            "trainer.deepspeed: .* by FSDP2 alone; .* set training.trainer.fsdp: true",
        ),
        (
            {"activation_checkpointing_kwargs": {"use_reentrant": True}},
            "use_reentrant: true would .*; leave use_reentrant out",
        ),
        ({"bf61": True}, "TrainingArguments has no such argument; did you mean 'bf16'?"),
        ({"dataloader_in_order": False}, "training.trainer.dataloader_in_order is decided by moai"),
        (
            {"report_to": ["nobody"]},
            "training.trainer: nobody is not supported.*; change the argument, or leave it out",
        ),
        ({"report_to": ["wandb"]}, "training.trainer: WandbCallback requires wandb to be installed.*; change the arg"),
    ],
)
def test_arguments_of_trainer_that_are_refused(tmp_path, given, sentence, monkeypatch):
    monkeypatch.setattr(integration_utils, "is_wandb_available", lambda: False)
    with pytest.raises(RecipeError, match=sentence):
        train(tiny.recipe(training={"trainer": given}), tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Tracker(TrainerCallback):
    """Keeps what a tracker is told, as those of ``report_to`` are."""

    told = []

    def on_train_begin(self, args, state, control, **kwargs):
        self.told.append(("begin", state.global_step, state.max_steps))

    def on_log(self, args, state, control, logs=None, **kwargs):
        self.told.append((state.global_step, logs["loss"], logs["gradient_norm"], logs["rate"]))


def test_trackers_and_half_precision_are_trainers(tmp_path, monkeypatch):
    monkeypatch.setitem(integration_utils.INTEGRATION_TO_CALLBACK, "ours", Tracker)
    monkeypatch.setattr(Tracker, "told", [])
    run = train(tiny.recipe(training={"trainer": {"bf16": True, "report_to": ["ours"]}}), tmp_path / "run")
    lines = read_log(run)
    assert all(0 < line["loss"] < 20 for line in lines)
    assert {tensor.dtype for tensor in load_file(run / "moai.safetensors").values()} == {torch.float32}
    steps = [(line["step"], line["loss"], line["gradient_norm"], line["rate"]) for line in lines]
    assert [told for told in Tracker.told if told[0] != "begin"] == steps, "one run for a tracker, over its stages"
    assert [told[1:] for told in Tracker.told if told[0] == "begin"] == [(0, 3), (3, 6)]


@pytest.mark.slow
def test_a_compiled_run_has_the_losses_of_one_that_is_not_and_goes_on(tmp_path, monkeypatch):
    """Few layers and one length, since each is compiled anew; the backend runs what was captured as it is."""
    folder = tmp_path / "parts"
    tiny.write_assets(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(tiny.host_config(num_hidden_layers=1)).save_pretrained(folder / "host")
    monkeypatch.setitem(registry().datasets, "one-length", lambda split, limit=None: tiny.dataset(split)[:8][:limit])
    calls = []
    forward = torch._dynamo.eval_frame.OptimizedModule.__call__
    monkeypatch.setattr(
        torch._dynamo.eval_frame.OptimizedModule, "__call__", lambda *a, **k: (calls.append(1), forward(*a, **k))[1]
    )

    def recipe(**trainer):
        parts = {"compressor": {"depth": 1}, "mixer": {"layers": [0]}, "data": tiny.data("one-length")}
        return tiny.recipe(folder, **parts, training={"trainer": trainer}, stages=[tiny.stage(steps=4)])

    plain = train(recipe(), tmp_path / "plain")
    assert not calls
    tiny.interrupt(monkeypatch, 3)
    compiled = recipe(torch_compile=True, torch_compile_backend="eager")
    with pytest.raises(KeyboardInterrupt):
        train(compiled, tmp_path / "run")
    run = train(compiled, tmp_path / "run", resume=True)
    assert len(calls) == 3 + 2, "of each step, also of those that a checkpoint does not hold"
    expected = [line["loss"] for line in read_log(plain)]
    assert [line["loss"] for line in read_log(run)] == pytest.approx(expected, abs=1e-5)
    one, two = load_file(plain / "moai.safetensors"), load_file(run / "moai.safetensors")
    assert one.keys() == two.keys() and not any("_orig_mod" in name for name in two)
    assert all(torch.allclose(one[name], two[name], atol=1e-5) for name in one)
    moai.load(run, device="cpu").ask(tiny.picture("red"), "What color is the shape?")
