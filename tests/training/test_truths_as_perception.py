"""Samples without images bring their perception along: they train, are evaluated, explained and checked without any."""

import json

import pytest
import tiny
import torch

import moai
from moai.data.check import check_samples
from moai.data.loss_view import show_sample
from moai.data.perceive import perceive_without, perceptions_of, truths_of
from moai.data.samples import Listed
from moai.errors import CorpusError, DataError, PromptError, RecipeError
from moai.evaluation.evaluate import evaluate_run
from moai.evaluation.paired import run_conditions
from moai.evaluation.shots import with_shots
from moai.plugins import registry
from moai.training.corpus import recipe_images
from moai.training.trainer import train
from moai.types import Conversation, Sample

ALIGN = tiny.stage("align", 2, objective="attention", batch_size=64, train={"mixers": 2e-3})


def told(split, limit=None):
    """Questions about scenes that were never drawn, two about each."""
    samples = []
    for number in range(12):
        color, other = tiny.COLORS[number % 4], tiny.COLORS[(number + 1) % 4]
        truth = tiny.seen(f"{color} circle", f"{other} square")
        for kind, question, answer in (
            ("color", "What color is the circle?", color),
            ("yes/no", f"Is there a {other} circle?", "no"),
        ):
            about = (f"{split}-{number}-{kind}", None, f"{split}/{number}", question, answer, kind, truth)
            samples.append(Sample.from_question(*about))
    return samples[:limit]


@pytest.fixture
def given(monkeypatch):
    """A recipe's sections; an expert that runs fails the test."""
    monkeypatch.setitem(registry().datasets, "told", told)
    monkeypatch.setattr(tiny.TinyPanoptic, "perceive", lambda *_: pytest.fail("an expert ran"))
    return {
        "data": tiny.data("told", 8),
        "perception": {"experts": ["tiny-panoptic"], "style": "compact"},
        "training": {
            "attention_supervision": 0.3, "batch_size": 6, "schedule": {"warmup": 1}, "checkpoint_every": 2,
            "monitor_every": 3, "threads": 1,
        },
        "stages": [ALIGN, tiny.stage(train={"compressor": 1e-3, "mixers": 1e-2, "gates": 1e-2})],
        "mixer": {"layers": [0, 2], "rank": 8, "heads": 2, "null_token": True, "qk_norm_scale": None},
        "compressor": {"latents": 16, "depth": 1, "heads": 2, "head_width": 16},
        "evaluation": {"limit": 8, "conditions": ("on", "off", "shuffled", "oracle")},
    }  # fmt: skip


def test_they_train_are_evaluated_and_explained(given, tmp_path, monkeypatch):
    tiny.draw_nothing(monkeypatch)
    monkeypatch.setattr("moai.model.encoders.image_input.EncoderImages.encode", lambda *_, **__: pytest.fail("encoded"))
    run = train(tiny.recipe(**given), tmp_path / "run")
    lines = [json.loads(line) for line in (run / "training.jsonl").read_text().splitlines()]
    last = lines[-1]
    assert last["loss_on"] != last["loss_off"] and last["loss_on"] != last["loss_shuffled"], "perception is read"
    assert any("attention" in line for line in lines if line["stage"] == "gates")
    augmented = moai.load(run)
    found = evaluate_run(run, augmented=augmented)
    scenes = {sample.id: sample.image_ids[0] for sample in told("test")}
    for record in found.records:
        assert record.predictions["on"] == record.predictions["oracle"], "both are the truth"
        assert record.image_id == scenes[record.id] and record.donor in scenes.values()
        assert record.donor != record.image_id
    interval = found.summary["groups"]["overall"]["differences"]
    assert any("shuffled" in name for name in interval)
    sample = told("test")[0]
    [explained] = augmented.explain([sample.conversation.prompt], [perceptions_of(sample, {})])
    assert "red circle" in explained.verbalized and explained.sources()


def test_their_prompt_is_that_of_text_and_their_words_are_the_truths(given):
    _, processor = tiny.made(**given)
    sample = told("train")[0]
    own = perceptions_of(sample, {})
    batch = processor.batch([sample.conversation.prompt], [own])
    alone = processor.batch([Conversation.ask(sample.question)], [[]])
    assert torch.equal(batch["input_ids"], alone["input_ids"]) and "pixel_values" not in batch
    assert processor.tokenizer.decode(batch["aux_input_ids"][0]) == processor.verbalize(own[0]).text


@pytest.mark.parametrize("template", ["question_answer", "host", "vicuna"])
def test_words_in_the_prompt_stand_before_the_question(given, template):
    host = {**tiny.recipe().host.model_dump(), "chat_template": template}
    perception = {"experts": ["tiny-panoptic"], "inject": "prompt"}
    plain = {"attention_supervision": 0.0, "threads": 1}
    words = {**given, "perception": perception, "training": plain, "stages": [tiny.stage()]}
    _, processor = tiny.made(**words, host=host)
    processor.max_length = None
    sample = told("train")[0]
    text = processor.verbalize(next(iter(sample.perceived.values()))).text
    for labels in (False, True):
        conversation = sample.conversation if labels else sample.conversation.prompt
        batch = processor.batch([conversation], [perceptions_of(sample, {})], labels=labels)
        shown = processor.tokenizer.decode(batch["input_ids"][0])
        assert f"{text}\n{sample.question}" in shown and shown.count(text) == 1
        without = processor.tokenizer.decode(processor.batch([conversation], [[]], labels=labels)["input_ids"][0])
        assert shown.replace(f"{text}\n", "") == without


def test_a_truth_is_no_perception_of_a_sample_with_an_image():
    image, truth = tiny.picture("red"), tiny.seen("blue circle")
    shown = Sample.from_question("a", image, "red", "What is it?", "circle", truth=truth)
    assert shown.perceived == {} and perceptions_of(shown, {"red": None}) == [None]
    drawn = Sample.from_question("b", None, "red", "What is it?", "circle", truth=truth)
    assert drawn.perceived == {"red": truth} and drawn.prompts[0][1] == ("red",)
    with pytest.raises(DataError, match="'red' names an image of one sample and a truth"):
        truths_of([shown, drawn])
    with pytest.raises(PromptError, match="neither an image nor a truth"):
        Sample.from_question("c", None, "red", "What is it?", "circle")
    with pytest.raises(PromptError, match="1 truths and no image and image_ids for another number"):
        Sample("d", drawn.conversation, (), truths=(truth,))


def test_conditions_that_need_images_say_so(given):
    samples = told("test")
    with pytest.raises(RecipeError, match="'without:tiny-panoptic' needs images, and sample 'test-0-color' has none"):
        perceive_without(None, "tiny-panoptic", samples, fix="")
    with pytest.raises(RecipeError, match="'other-image' needs images"):
        run_conditions(None, samples, truths_of(samples), ["on", "other-image"])


def test_they_are_checked_and_listed_with_their_words(given):
    _, processor = tiny.made(**given)
    report = check_samples(Listed(told("train")), processor)
    assert report.counts["perception without an image"] == 24 and not report.bad and "text only" not in report.counts
    sample = told("train")[0]
    for one in (processor, None):
        first = show_sample(sample, "row 1", one).segments[0]
        assert first.text.startswith("perception: ") and "red circle" in first.text and not first.learnt


def test_perceiving_them_ahead_says_that_there_is_nothing_to_perceive(given):
    with pytest.raises(CorpusError, match="the data of tiny has no images, so there is nothing to perceive"):
        list(recipe_images(tiny.recipe(**given)))


def test_shots_of_them_are_other_scenes_whose_truths_come_along():
    [sample] = with_shots(told("test")[:1], told("train"), 2)
    assert len(sample.truths) == len(sample.image_ids) == 3 and sample.image_ids[-1] == "test/0"
    assert len(sample.conversation.turns) == 6 and not sample.images
    assert list(sample.perceived) == list(sample.image_ids) == list(sample.prompts[0][1])
