"""A whole training run on the tiny model: what it leaves behind, what it must not touch, and what it refuses."""

import hashlib
import json

import pytest
import tiny
import torch
import yaml
from safetensors.torch import load_file

import moai
import moai.training.run
from moai.errors import AssetError, CheckpointError, ExpertError, HostError, MoaiError, RecipeError
from moai.plugins import registry
from moai.training.build import build
from moai.training.curves import draw_curves
from moai.training.log import read_log
from moai.training.trainer import train
from moai.types import Sample


@pytest.fixture
def watched(monkeypatch):
    """Keep the model that ``train`` builds."""
    kept = {}

    def keep(recipe):
        model, processor = build(recipe)
        kept["model"], kept["before"] = model, snapshot(model)
        kept["adapters"] = {name: p.detach().clone() for name, p in model.adapter_parameters().items()}
        return model, processor

    monkeypatch.setattr(moai.training.run, "build", keep)
    return kept


def snapshot(model):
    """Frozen tensors, buffers included, by name."""
    frozen = {f"host.{name}": tensor for name, tensor in model.host.state_dict().items()}
    frozen |= {f"vision.{name}": tensor for name, tensor in model.images.vision.state_dict().items()}
    return {name: tensor.clone() for name, tensor in frozen.items()}


def digests():
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in tiny.assets().rglob("*") if path.is_file()}


def test_training_leaves_the_frozen_parts_bit_for_bit(tmp_path, watched):
    files = digests()
    fast = {"connector": 0.05, "compressor": 0.005, "mixers": 0.05}
    train(tiny.recipe(stages=[tiny.stage(train=fast), tiny.stage("two", train={"gates": 0.05})]), tmp_path / "run")
    after = snapshot(watched["model"])
    assert set(after) == set(watched["before"])
    assert all(torch.equal(after[name], tensor) for name, tensor in watched["before"].items())
    assert files == digests()
    before, trained = watched["adapters"], watched["model"].adapter_parameters()
    moved = {name for name, p in trained.items() if not torch.equal(p, before[name])}
    assert {name.split(".")[0] for name in moved} == {"connector", "compressor", "mixers"}
    assert set(load_file(tmp_path / "run" / "moai.safetensors")) == set(watched["adapters"])


def test_a_bf16_host_stays_as_it_is_too(tmp_path, watched):
    train(tiny.recipe(host={"dtype": "bfloat16"}), tmp_path / "run")
    after = snapshot(watched["model"])
    assert after["host.model.norm.weight"].dtype == torch.bfloat16
    assert all(torch.equal(after[name], tensor) for name, tensor in watched["before"].items())
    assert {t.dtype for t in load_file(tmp_path / "run" / "moai.safetensors").values()} == {torch.float32}


def test_one_step_of_step_one_moves_only_what_was_drawn(tmp_path, watched):
    from moai.model.mixer.mixer import IMAGE_MODULES, LANGUAGE_MODULES
    from moai.training.sampling import draw_modules

    train(tiny.recipe(stages=[tiny.stage("modules", 1, routing="random_module")]), tmp_path / "run")
    model, before = watched["model"], watched["adapters"]
    moved = {name for name, p in model.adapter_parameters().items() if not torch.equal(p, before[name])}
    drawn = {
        f"mixers.{mixer}.attention.{names[pick]}"
        for mixer, picks in zip(model.mixers, draw_modules(0, 0, 2).tolist())
        for names, pick in zip((IMAGE_MODULES, LANGUAGE_MODULES), picks)
    }
    assert {".".join(name.split(".")[:4]) for name in moved if name.startswith("mixers")} == drawn


def test_the_run_folder(tmp_path, monkeypatch):
    monkeypatch.setattr(moai.training.run, "draw_curves", draw_curves)
    run = train(tiny.recipe(), tmp_path / "run")
    assert run == tmp_path / "run"
    lines = read_log(run)
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert all({"loss", "gradient_norm", "rate", "seconds"} <= set(line) for line in lines)
    measured = [line["step"] for line in lines if "spread" in line]
    assert measured == [3, 6]
    assert all(f"loss_{name}" in lines[2] for name in ("on", "off", "shuffled"))
    assert (run / "curves.png").read_bytes().startswith(b"\x89PNG")
    assert yaml.safe_load((run / "recipe.yaml").read_text())["training"]["batch_size"] == 4
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["step-0000006"]
    assert not [path for path in run.rglob("*") if path.suffix == ".part"]
    manifest = json.loads((run / "manifest.json").read_text())
    assert {"config.json", "moai.safetensors", "tokenizer.json"} <= set(manifest)


def test_a_trained_run_answers(tmp_path):
    run = train(tiny.recipe(), tmp_path / "run")
    augmented = moai.load(run, device="cpu")
    answer = augmented.ask(tiny.picture("red"), "What color is the shape?")
    assert "red" in answer.verbalized and not answer.failures


@pytest.mark.slow
def test_the_seed_decides_everything(tmp_path):
    runs = [train(tiny.recipe(seed=seed), tmp_path / f"{index}") for index, seed in enumerate((0, 0, 1))]
    weights = [(run / "moai.safetensors").read_bytes() for run in runs]
    losses = [[line["loss"] for line in read_log(run)] for run in runs]
    assert weights[0] == weights[1] and losses[0] == losses[1]
    assert weights[0] != weights[2] and losses[0] != losses[2]


def test_every_image_is_perceived_once(tmp_path, monkeypatch):
    looked = []
    perceive = tiny.TinyPanoptic.perceive

    def watched(self, images, context):
        looked.extend(images)
        return perceive(self, images, context)

    monkeypatch.setattr(tiny.TinyPanoptic, "perceive", watched)
    train(tiny.recipe(), tmp_path / "first")
    count = len(looked)
    assert 4 < count == len({image.tobytes() for image in looked})
    train(tiny.recipe(name="again"), tmp_path / "second")
    assert len(looked) == count, "the second run finds every perception in the cache"


@pytest.mark.slow
def test_perception_is_learnt_when_the_images_are_dropped(tmp_path, monkeypatch):
    """The sign that the whole path works: another image's perception serves worse than the own one."""
    samples = [sample for sample in tiny.dataset("train") if sample.question.startswith("What")]
    monkeypatch.setitem(registry().datasets, "tiny-colors", lambda split, limit=None: samples[:limit])
    plan = {"batch_size": 16, "checkpoint_every": 100, "monitor_every": 100}
    rates = dict.fromkeys(("connector", "compressor", "mixers"), 1e-2)
    stages = [
        tiny.stage("modules", 12, routing="random_module", image_dropout=1.0, train=rates),
        tiny.stage("gates", 50, continues=True, image_dropout=0.99, train={**rates, "gates": 1e-2}),
    ]
    data = tiny.data("tiny-colors", 8)
    run = train(tiny.recipe(training=plan, stages=stages, data=data, mixer={"qk_norm_scale": 4.0}), tmp_path / "run")
    last = read_log(run)[-1]
    assert last["loss_on"] < 0.7 * read_log(run)[0]["loss"]
    assert last["loss_shuffled"] > last["loss_on"] + 0.2


def test_the_connector_only_baseline_trains(tmp_path):
    run = train(tiny.recipe(mixer={"layers": []}, perception={"experts": []}), tmp_path / "run")
    last = read_log(run)[-1]
    assert last["spread"] == 0 and last["loss_on"] == last["loss_off"] == last["loss_shuffled"]
    assert moai.load(run, device="cpu").ask(tiny.picture("red"), "What?").verbalized == ""


# What it refuses --------------------------------------------------------------------------------------------------


def test_a_taken_folder(tmp_path):
    train(tiny.recipe(), tmp_path / "run")
    with pytest.raises(RecipeError, match="holds a run already; go on with --resume, or name another folder"):
        train(tiny.recipe(), tmp_path / "run")


def test_resuming_with_another_recipe(tmp_path):
    train(tiny.recipe(), tmp_path / "run")
    with pytest.raises(CheckpointError, match="differs from the recipe given; resume with the same recipe"):
        train(tiny.recipe(seed=1), tmp_path / "run", resume=True)


def test_resuming_a_finished_run_changes_nothing(tmp_path):
    run = train(tiny.recipe(), tmp_path / "run")
    names = ("moai.safetensors", "training.jsonl", "manifest.json")
    before = [(run / name).read_bytes() for name in names]
    train(tiny.recipe(), run, resume=True)
    assert [(run / name).read_bytes() for name in names] == before


@pytest.mark.parametrize(
    "changes, kind, message",
    [
        ({"data": tiny.data("tinny")}, RecipeError, "unknown data set 'tinny'; did you mean 'tiny'?"),
        ({"data": tiny.data("tiny", limits=3)}, RecipeError, "options does not fit data set 'tiny'.*limits"),
        ({"perception": {"experts": ["tiny-panotpic"]}}, ExpertError, "did you mean 'tiny-panoptic'?"),
        ({"vision": {"connector": {"kind": "mpl"}}}, RecipeError, "unknown connector 'mpl'; did you mean 'mlp'?"),
        (
            {"vision": {"connector": {"options": {"depth": 3}}}},
            RecipeError,
            "vision.connector.options does not fit connector 'mlp'",
        ),
        ({"vision": {"architecture": "test_efficientnat"}}, AssetError, "timm has no model.*did you mean"),
        ({"host": {"reference": "/no/such/host"}}, AssetError, "/no/such/host"),
        ({"mixer": {"layers": [7]}}, HostError, "mixer in layer 7"),
        ({"mixer": {"layers": None}}, RecipeError, "fewer than 8 layers; name mixer.layers or mixer.every"),
        ({"mixer": {"heads": 7}}, HostError, "width 64 cannot be split into 7 heads; change mixer.heads"),
        ({"vision": {"image_token": "<picture>"}}, RecipeError, "vision.image_token '<picture>' is no special token"),
        (
            {"stages": [tiny.stage(sampling_rate_by_type={"colour": 0.5})]},
            RecipeError,
            "an 'color'?",
        ),
    ],
)
def test_a_recipe_that_does_not_fit_leaves_the_folder_free(tmp_path, changes, kind, message):
    with pytest.raises(kind, match=message):
        train(tiny.recipe(**changes), tmp_path / "run")
    assert not (tmp_path / "run" / "recipe.yaml").exists(), "the fixed recipe must be able to use the folder"


def test_an_empty_split(tmp_path, monkeypatch):
    monkeypatch.setitem(registry().datasets, "tiny-empty", lambda split, limit=None: [])
    with pytest.raises(RecipeError, match="the split 'train' of tiny-empty is empty; choose another split"):
        train(tiny.recipe(data=tiny.data("tiny-empty")), tmp_path / "run")


def test_a_question_longer_than_the_context_in_the_data(tmp_path, monkeypatch):
    long = Sample.from_question("1", tiny.png(tiny.picture("red")), "1", "Is it red? " * 100, "no", "x")
    monkeypatch.setitem(registry().datasets, "tiny-long", lambda split, limit=None: [long])
    with pytest.raises(MoaiError, match="shorten the question"):
        train(tiny.recipe(data=tiny.data("tiny-long")), tmp_path / "run")


def test_a_frozen_connector_stays_and_nothing_runs_backwards_below_the_first_mixer(tmp_path, watched, monkeypatch):
    frozen = tiny.stage(steps=2, train={"compressor": 1e-4, "mixers": 1e-3, "gates": 1e-3})
    needed = []

    def look(module, args, kwargs):
        needed.append((args[0] if args else kwargs["hidden_states"]).requires_grad)

    def hooked(recipe):
        model, processor = build_watched(recipe)
        model.host.model.layers[1].register_forward_pre_hook(look, with_kwargs=True)
        return model, processor

    build_watched = moai.training.run.build
    monkeypatch.setattr(moai.training.run, "build", hooked)
    changes = {"training": {"monitor_every": 100}, "stages": [frozen]}
    train(tiny.recipe(mixer={"layers": [2]}, vision={"panoptic_map": False}, **changes), tmp_path / "run")
    model, before = watched["model"], watched["adapters"]
    moved = {name for name, p in model.adapter_parameters().items() if not torch.equal(p, before[name])}
    assert moved and not any(name.startswith("connector") for name in moved) and not any(needed)
