"""Training, evaluation and answering of conversations: text alone, several images, several turns, in one data set."""

import json

import pytest
import tiny
import torch

import moai
from moai.errors import DataError
from moai.evaluation.evaluate import evaluate_run
from moai.plugins import registry
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Sample, Turn

ALIGN = tiny.stage("align", 2, objective="attention", batch_size=64, train={"mixers": 2e-3})
TWO = (tiny.stage("modules", routing="random_module"), tiny.stage("gates", continues=True))


def dataset(split, limit=None):
    """Rows of every make-up, as a plugin's data set returns them."""
    samples = []
    for number in range(12):
        color, other = tiny.COLORS[number % 4], tiny.COLORS[(number + 1) % 4]
        one, two = tiny.png(tiny.picture(color)), tiny.png(tiny.picture(other))
        dialogue = (
            Turn("user", (IMAGE, "What color is it?")), Turn("assistant", color),
            Turn("user", ("And ", IMAGE, " this one?")), Turn("assistant", other),
        )  # fmt: skip
        kinds = (
            ("text", Conversation.ask("Say yes.", (), "yes"), ()),
            ("one", Conversation.ask("What color?", (one,), color), (color,)),
            ("two", Conversation.ask("Which colors are these?", (one, two), f"{color} {other}"), (color, other)),
            ("dialogue", Conversation(dialogue, (one, two)), (color, other)),
        )
        samples += [Sample(f"{split}-{number}-{kind}", made, ids, kind) for kind, made, ids in kinds]
    return samples[:limit]


@pytest.fixture
def mixed(monkeypatch):
    monkeypatch.setitem(registry().datasets, "mixed", dataset)
    return {
        "data": tiny.data("mixed", 8),
        "perception": {"experts": ["tiny-panoptic"], "style": "compact"},
        "training": {
            "attention_supervision": 0.3, "batch_size": 6, "schedule": {"warmup": 1}, "checkpoint_every": 2,
            "monitor_every": 3, "threads": 1, "mixed_lengths": True,
        },
        "stages": [ALIGN, *TWO],
        "mixer": {"layers": [0, 2], "rank": 8, "heads": 2, "null_token": True, "qk_norm_scale": None},
        "compressor": {"latents": 16, "depth": 1, "heads": 2, "head_width": 16},
        "evaluation": {"limit": 8},
    }  # fmt: skip


def test_they_train_evaluate_and_answer(mixed, tmp_path):
    run = train(tiny.recipe(**mixed), tmp_path / "run")
    lines = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    losses = [line["loss"] for line in lines if line["stage"] != "align"]
    assert len(losses) == 6 and all(0 < loss < 20 for loss in losses)
    found = evaluate_run(run)
    assert {record.kind for record in found.records} >= {"text", "one"}
    several = next(record for record in found.records if record.kind in ("two", "dialogue"))
    assert several.image_id.count(" + ") == 1 and set(several.predictions) == {"on", "off", "shuffled"}
    augmented = moai.load(run)
    answers = augmented.ask_many([sample.conversation.prompt for sample in dataset("test")[:4]])
    assert len(answers) == 4


@pytest.mark.slow
def test_an_interrupted_run_goes_on_exactly(mixed, tmp_path, monkeypatch):
    recipe = tiny.recipe(**mixed)
    whole = train(recipe, tmp_path / "whole")
    tiny.interrupt(monkeypatch, 4)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "killed")
    resumed = train(recipe, tmp_path / "killed", resume=True)
    from safetensors.torch import load_file

    one, two = (load_file(run / "moai.safetensors") for run in (whole, resumed))
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_a_conversation_that_does_not_fit_is_named(mixed, tmp_path, monkeypatch):
    long = Sample("the-long-one", Conversation.ask("Say yes. " * 200, (), "yes"), (), "text")
    monkeypatch.setitem(registry().datasets, "mixed", lambda split, limit=None: [*dataset(split), long])
    with pytest.raises(DataError, match="sample 'the-long-one': the prompt has .* context holds"):
        train(tiny.recipe(**mixed), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_text_alone_trains(mixed, tmp_path, monkeypatch):
    monkeypatch.setitem(
        registry().datasets, "mixed", lambda split, limit=None: [s for s in dataset(split) if s.kind == "text"][:limit]
    )
    changes = {**mixed, "perception": {"experts": []}}
    changes["training"], changes["stages"] = {**mixed["training"], "attention_supervision": 0.0}, TWO
    run = train(tiny.recipe(**changes), tmp_path / "run")
    assert moai.load(run).ask(None, "Say yes.").text is not None
