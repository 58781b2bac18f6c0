"""States below the first mixer are computed once per row, and nothing else about a run changes."""

import json

import pytest
import tiny
import torch

from moai.plugins import registry
from moai.training import prefix_states
from moai.training.prefix_states import PrefixStates
from moai.training.progress import Progress
from moai.training.run import Run
from moai.training.trainer import train
from moai.types import Sample

PARTS = {"compressor": 1e-3, "mixers": 1e-2}
WORDS = tiny.stage("words", 6, image_dropout=1.0, train={**PARTS, "gates": 1e-2})
STAGES = [WORDS, tiny.stage("shown", 2)]


def recipe(**changes):
    given = {"mixer": {"layers": [2, 3]}, "stages": STAGES, "training": {"checkpoint_every": 4, "monitor_every": 3}}
    return tiny.recipe(**{**given, **changes})


def losses(run):
    lines = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    return [{name: value for name, value in line.items() if name not in ("seconds", "stage")} for line in lines]


def assert_alike(one, other):
    """Equal but for the last bits, since rows computed together have another shape; Adam makes more of them."""
    first, *rest = zip(losses(one), losses(other), strict=True)
    assert first[0] == pytest.approx(first[1], rel=1e-5)
    for line, same in rest:
        assert line["loss"] == pytest.approx(same["loss"], rel=5e-3)


def without(monkeypatch):
    monkeypatch.setattr(PrefixStates, "of_stage", classmethod(lambda *_: None))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"perception": {"context_layer": 1}, "training": {"checkpoint_every": 4, "attention_supervision": 0.3}},
        {"arithmetic": "published", "mixer": {"layers": [1, 3], "qk_norm_scale": None}},
    ],
    ids=["plain", "context", "published"],
)
def test_losses_and_weights_are_the_same(tmp_path, monkeypatch, changes):
    with_states, plain = tmp_path / "a", tmp_path / "b"
    made = []
    compute = PrefixStates._compute
    monkeypatch.setattr(PrefixStates, "_compute", lambda self, rows: (made.append(len(rows)), compute(self, rows)))
    train(recipe(**changes), with_states)
    assert made, "states were computed"
    without(monkeypatch)
    train(recipe(**changes), plain)
    assert_alike(with_states, plain)


def test_the_layers_below_run_once_per_row_and_the_encoder_not_at_all(tmp_path, monkeypatch):
    calls, encoded = [], []
    made = {}
    objective = Run._objective

    def watched(self, plan, prefix):
        if plan.stage.name == "words":
            made["rows"] = len(prefix.states)
            self.model.images.vision.register_forward_pre_hook(lambda *_: encoded.append(1))
            count = self.model.host.model.layers[0].self_attn.register_forward_pre_hook(
                lambda module, args, kwargs: calls.append(1), with_kwargs=True
            )
            made["hook"] = count
        else:
            made["hook"].remove()
            made["in words"] = (len(calls), len(encoded))
        return objective(self, plan, prefix)

    monkeypatch.setattr(Run, "_objective", watched)
    quiet = {"checkpoint_every": 100, "monitor_every": 100}
    train(recipe(vision={"panoptic_map": False}, training=quiet), tmp_path / "run")
    assert made["rows"] == 6, "a question with four answers and one with two"
    assert made["in words"] == (0, 0)


def test_a_resumed_run_has_the_states_of_an_uninterrupted_one(tmp_path, monkeypatch):
    train(recipe(), tmp_path / "whole")
    tiny.interrupt(monkeypatch, 5)
    with pytest.raises(KeyboardInterrupt):
        train(recipe(), tmp_path / "cut")
    train(recipe(), tmp_path / "cut", resume=True)
    assert losses(tmp_path / "cut") == losses(tmp_path / "whole")


def test_a_model_after_the_stage_is_as_before_it(monkeypatch, tmp_path):
    model, processor = tiny.made(mixer={"layers": [2]})
    sample = tiny.dataset("train")[0]
    batch = processor.batch([sample.conversation], [[None]], labels=True)
    with torch.no_grad():
        before = model(**batch).logits
        states = PrefixStates(model, processor, {prefix_states._key(processor, sample): sample})
        with states.installed():
            assert torch.equal(model(**batch).logits, before), "a pass without states runs all layers"
            dropped = model(**batch, image_keep=torch.tensor([False])).logits
            filled = states.fill(dict(batch), [sample])
            assert "pixel_values" not in filled
            assert torch.equal(model(**filled).logits, dropped)
            assert torch.equal(model(**batch).logits, before)
        assert torch.equal(model(**batch).logits, before)
    assert not any("forward" in vars(layer) for layer in model.host.model.layers)


def test_stages_in_which_they_change_or_hardly_repeat_have_none(tmp_path, monkeypatch):
    def found(stage, **changes):
        run = Run(recipe(stages=[stage, tiny.stage("last")], **changes), tmp_path / "run", Progress())
        return PrefixStates.of_stage(run.model, run.processor, run.samples, run.training, run.plans[0])

    assert len(found(WORDS).states) == 6
    assert found({**WORDS, "image_dropout": 0.5}) is None, "images have features"
    assert found({**WORDS, "train": {**PARTS, "connector": 1e-3}}) is None
    assert found({**WORDS, "train": {"host": {"rate": 1e-3, "lora": 2}}}) is None
    assert found(WORDS, mixer={"layers": [0, 2]}) is None, "nothing is below the first mixer"
    with monkeypatch.context() as patch:
        patch.setattr(prefix_states, "REUSE", 5)
        assert found(WORDS) is None, "six rows of 24 samples"
    monkeypatch.setattr(prefix_states, "LIMIT", 1000)
    assert found(WORDS) is None


def test_words_alone_have_them_too(tmp_path, monkeypatch):
    truth = tiny.seen("red circle")
    samples = [
        Sample.from_question(str(n), None, str(n), "What is it?", ("a circle", "no")[n % 2], truth=truth)
        for n in range(12)
    ]
    monkeypatch.setitem(registry().datasets, "few", lambda split, limit=None: samples[:limit])
    given = {"vision": {"kind": "none"}, "data": tiny.data("few"), "stages": [tiny.stage("only", 4)]}
    run = train(recipe(**given), tmp_path / "a")
    without(monkeypatch)
    assert_alike(run, train(recipe(**given), tmp_path / "b"))
