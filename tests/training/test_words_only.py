"""Runs of words alone: images are perceived and have no tokens, from the recipe to the Auto classes."""

import json

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, AutoProcessor

import moai
from moai.errors import HostError, PromptError, RecipeError
from moai.evaluation.evaluate import evaluate_run
from moai.expert import Expert
from moai.model.likelihood import score_answers
from moai.model.processor.image_places import NoImagePlaces
from moai.plugins import registry
from moai.recipe.loading import load_recipe
from moai.training.memory_plan.plan import plan
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Sample, Turn

MIXER = {"layers": [0, 2], "rank": 8, "heads": 2, "null_token": True, "qk_norm_scale": None}
QUESTION = "What color is the circle?"


def told(split, limit=None):
    """Questions about scenes that were never drawn."""
    samples = []
    for number in range(12):
        color, other = tiny.COLORS[number % 4], tiny.COLORS[(number + 1) % 4]
        truth = tiny.seen(f"{color} circle", f"{other} square")
        asked, answer = (QUESTION, color) if number % 2 else (QUESTION.replace("circle", "square"), other)
        about = (f"{split}-{number}", None, f"{split}/{number}", asked, answer, "color", truth)
        samples.append(Sample.from_question(*about))
    return samples[:limit]


@pytest.fixture
def words(monkeypatch):
    """Sections of a recipe of words alone."""
    tiny.register()
    monkeypatch.setitem(registry().datasets, "told", told)
    return {
        "vision": {"kind": "none"},
        "data": tiny.data("told", 8),
        "perception": {"experts": ["tiny-panoptic"], "style": "compact"},
        "training": {
            "attention_supervision": 0.3, "batch_size": 6, "schedule": {"warmup": 1}, "checkpoint_every": 2,
            "monitor_every": 3, "threads": 1,
        },
        "stages": [
            tiny.stage("align", 2, objective="attention", batch_size=64, train={"mixers": 2e-3}),
            tiny.stage("modules", 2, routing="random_module"),
            tiny.stage("gates", 2, continues=True),
        ],
        "mixer": MIXER,
        "compressor": {"latents": 16, "depth": 1, "heads": 2, "head_width": 16},
        "evaluation": {"limit": 6, "conditions": ("on", "off", "shuffled", "oracle")},
    }  # fmt: skip


def test_a_run_trains_and_answers_about_a_photograph(words, tmp_path, monkeypatch):
    tiny.draw_nothing(monkeypatch)
    recipe = tiny.recipe(**words)
    run = train(recipe, tmp_path / "run")
    assert load_recipe(run / "recipe.yaml") == recipe
    names = load_file(run / "moai.safetensors")
    assert not [name for name in names if "connector" in name or "image" in name], "nothing of an image stream"
    assert names["mixers.0.gate_language.weight"].shape == (2, tiny.WIDTH)
    last = json.loads((run / "training.jsonl").read_text().splitlines()[-1])
    assert last["loss_on"] != last["loss_shuffled"]
    host = load_file(tiny.assets() / "host" / "model.safetensors")
    augmented = moai.load(run)
    for name, value in augmented.model.host.state_dict().items():
        assert name not in host or torch.equal(value, host[name]), "frozen"
    found = evaluate_run(run, augmented=augmented)
    assert list(found.summary["gates"]["layers"][0]) == ["layer", "language"]
    picture = tiny.picture("red")
    answer = augmented.ask(picture, QUESTION, explain=True)
    assert answer.verbalized and answer.perception.segments and answer.explanation.sources()
    chat = augmented.chat([Turn("user", (IMAGE, QUESTION))], [picture])
    assert chat.text == answer.text == augmented.ask_many([(picture, QUESTION)])[0].text
    [cost] = augmented.token_counts([Conversation.ask(QUESTION, [picture])], [[answer.perception]])
    assert cost["prompt"] == len(augmented.processor.encode(Conversation.ask(QUESTION)).ids) and cost["words"]
    model, processor = AutoModelForImageTextToText.from_pretrained(run), AutoProcessor.from_pretrained(run)
    assert isinstance(processor.images, NoImagePlaces) and processor.chat_template == augmented.processor.chat_template
    inputs = processor.apply_chat_template(
        tiny.user_turn(picture, QUESTION), tokenize=True, return_dict=True, add_generation_prompt=True
    )
    assert "pixel_values" not in inputs and inputs["aux_attention_mask"].any()
    written = model.generate(**inputs, max_new_tokens=16, do_sample=False, eos_token_id=augmented.stops)
    assert processor.decode_answers(written[:, inputs["input_ids"].shape[1] :]) == [answer.text]
    assert set(processor.model_input_names) >= set(inputs)


@pytest.mark.parametrize("template", ["question_answer", "host", "vicuna"])
def test_a_prompt_is_the_same_with_an_image_and_without(words, template):
    host = {**tiny.recipe().host.model_dump(), "chat_template": template}
    _, processor = tiny.made(**words, host=host)
    processor.max_length = None
    shown, seen = Conversation.ask(QUESTION, [tiny.picture("red")]), tiny.seen("red circle")
    batches = [processor.batch([one], [[seen]]) for one in (shown, Conversation.ask(QUESTION))]
    rendered = processor.apply_chat_template(
        tiny.user_turn(tiny.picture("red"), QUESTION), tokenize=True, return_dict=True, add_generation_prompt=True,
        processor_kwargs={"perceptions": [seen]},
    )  # fmt: skip
    for other in (batches[1], rendered):
        assert batches[0].keys() == other.keys()
        assert all(torch.equal(batches[0][name], other[name]) for name in other)
    document = Conversation((Turn("text", ("It is ", IMAGE, "red.")),), [tiny.picture("red")], loss="all")
    assert processor.image_token_id not in processor.encode(document, labels=True).ids


def test_images_of_rendered_prompts_are_told_apart_by_their_lists(words):
    _, processor = tiny.made(**words)
    red, blue, seen = tiny.picture("red"), tiny.picture("blue"), tiny.seen("red circle")
    for images in ([[red, red], [blue]], [red, blue]):
        count = 3 if isinstance(images[0], list) else 2
        batch = processor(images, ["One?", "Two?"], [None] * (count - 1) + [seen])
        assert batch["aux_attention_mask"].any(dim=1).tolist() == [False, True]
    assert processor([red, blue], "One?", [seen, None])["aux_attention_mask"].any()
    with pytest.raises(PromptError, match="3 images for 2 prompts; give a list of images per prompt"):
        processor([red, red, blue], ["One?", "Two?"], [seen] * 3)
    with pytest.raises(PromptError, match="this run takes no images"):
        processor(red, f"{processor.image_token}One?", [seen])


def test_pixels_and_placeholders_are_refused(words):
    model, processor = tiny.made(**words)
    inputs = processor.batch([Conversation.ask(QUESTION)], [[]])
    pixels = torch.zeros(1, 3, 64, 64)
    for call in (model, model.generate):
        with pytest.raises(PromptError, match="this run takes no images"):
            call(**inputs, pixel_values=pixels)
    ids = torch.full_like(inputs["input_ids"], processor.image_token_id)
    with pytest.raises(PromptError, match="image placeholders"):
        model(input_ids=ids)
    with pytest.raises(HostError, match="vision.kind: encoder"):
        model.images.encode_maps(pixels)
    with pytest.raises(HostError, match="panoptic maps"):
        processor.images.pictures([tiny.picture("red")])


def test_mixers_begin_as_the_identity_and_give_the_host_back(words):
    model, processor = tiny.made(**words, noise=0.0)
    inputs = dict(processor.batch([Conversation.ask(QUESTION)], [[tiny.seen("red circle")]]))
    bare = {name: inputs[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        expected = model.host(**bare).logits
        assert torch.equal(model(**inputs).logits, expected), "identity at the start"
        tiny.disturb(model, 0.1)
        assert not torch.allclose(model(**inputs).logits, expected, atol=1e-3), "and then they mix"
        assert torch.equal(model.remove_mixers()(**bare).logits, expected)


def test_rows_are_independent_and_a_cache_changes_nothing(words):
    model, processor = tiny.made(**words)
    asked = [Conversation.ask(text) for text in (QUESTION, "Is there a red shape?", "What?")]
    seen = [[tiny.seen("red circle", "blue square")], [None], [tiny.seen("green circle")]]
    together = dict(processor.batch(asked, seen))
    with torch.no_grad():
        logits = model(**together, logits_to_keep=1).logits
        for row, (one, own) in enumerate(zip(asked, seen, strict=True)):
            alone = model(**processor.batch([one], [own]), logits_to_keep=1).logits
            assert torch.allclose(logits[row], alone[0], atol=1e-4)
    cached, plain = (
        model.generate(**together, max_new_tokens=5, do_sample=False, use_cache=use, eos_token_id=[])
        for use in (True, False)
    )
    assert torch.equal(cached, plain)
    conversations = [Conversation((*one.turns, Turn("assistant", "red")), ()) for one in asked]
    batch = processor.batch(conversations, seen, labels=True)
    scores = score_answers(model, processor, dict(batch))
    single = score_answers(model, processor, dict(processor.batch(conversations[:1], seen[:1], labels=True)))
    assert scores[0].logprob == pytest.approx(single[0].logprob, abs=1e-4)


def test_fused_modules_give_what_they_give_one_by_one(words):
    mixer = {**MIXER, "qk_norm_scale": 4.0, "tie_qk_at_init": True}
    model, processor = tiny.made(**{**words, "mixer": mixer})
    inputs = processor.batch([Conversation.ask(QUESTION)] * 2, [[tiny.seen("red circle")], [None]])
    with torch.no_grad():
        fused = model(**inputs).logits
        assert all(one.fuses for one in model.mixers.values())
        model.fix_adapters()
        assert torch.equal(model(**inputs).logits, fused)
        for one in model.mixers.values():
            one.fuses = False
        assert torch.allclose(model(**inputs).logits, fused, atol=1e-4)


def test_the_parts_of_a_run_with_images_hold_those_of_one_without(words):
    plain, _ = tiny.made(**words)
    shown, _ = tiny.made(**{**words, "vision": tiny.recipe().vision.model_dump()})
    own, others = plain.adapter_parameters(), shown.adapter_parameters()
    assert own.keys() < others.keys()
    assert {name for name in own if own[name].shape != others[name].shape} == {
        f"mixers.{layer}.gate_language.{kind}" for layer in (0, 2) for kind in ("weight", "bias")
    }


def test_words_in_the_prompt_stand_where_the_photograph_is_asked_about(words):
    perception = {**words["perception"], "inject": "prompt"}
    given = {**words, "perception": perception, "training": {"threads": 1}, "stages": [tiny.stage()]}
    _, processor = tiny.made(**given)
    seen = tiny.seen("red circle")
    text = processor.verbalize(seen).text
    later = Conversation((Turn("user", "Hello."), Turn("assistant", "yes"), Turn("user", (IMAGE, QUESTION))), ("x",))
    shown = processor.tokenizer.decode(processor.batch([later], [[seen]])["input_ids"][0])
    assert f"{text}\n{QUESTION}" in shown and shown.index("Hello") < shown.index(text)
    with pytest.raises(PromptError, match="does not say where; use moai.load"):
        processor(tiny.picture("red"), "What?", [seen])


def test_a_plan_counts_neither_encoder_nor_image_tokens(words):
    made = plan(tiny.recipe(**words))
    assert [part.name for part in made.parts] == ["host", "compressor", "mixers"]
    assert made.tokens["image"] == 0 and made.activations > 0
    with pytest.raises(RecipeError, match="--vision-shape is of a vision encoder"):
        plan(tiny.recipe(**words), vision_shape="width=64")


def test_what_needs_an_encoder_is_refused(words):
    for change in ({"image_dropout": 0.5}, {"train": {"connector": 1e-3}}, {"train": {"vision": 1e-3}}):
        with pytest.raises(ValueError, match="vision.kind: encoder"):
            tiny.recipe(**{**words, "stages": [tiny.stage(**change)]})


def test_a_connector_that_never_gets_an_image_is_refused():
    stages = [tiny.stage("one", image_dropout=1.0), tiny.stage("two", image_dropout=1.0, train={"mixers": 1e-3})]
    with pytest.raises(ValueError, match=r"stages.two.image_dropout: no stage gives the connector.*kind: none"):
        tiny.recipe(stages=stages)
    assert tiny.recipe(stages=[stages[0], tiny.stage("two", image_dropout=0.9)])


def test_alignment_may_draw_from_more_samples_than_are_answered(words, monkeypatch, tmp_path):
    align = {**words["stages"][0], "samples": 9}
    one = tiny.stage("one", 1, batch_size=2)
    made = {}
    monkeypatch.setattr("moai.training.run.AttentionBatches", lambda *_, **given: made.update(given) or Empty())

    class Empty:
        usable = (0,)

        def __init__(self):
            raise KeyboardInterrupt  # there is no more to see

    with pytest.raises(KeyboardInterrupt):
        train(tiny.recipe(**{**words, "stages": [align, one]}), tmp_path / "run")
    assert len(made["chosen"]) == 9 and len(made["word_cache"].group_of) == 0
    with pytest.raises(ValueError, match="stages.one.samples is for objective: attention"):
        tiny.recipe(**{**words, "stages": [{**one, "samples": 9}]})


def test_a_photograph_is_perceived_once_and_never_encoded(words, tmp_path):
    model, processor = tiny.made(**words)
    calls = []

    class Counting(tiny.TinyPanoptic):
        def perceive(self, images, context):
            calls.append(len(images))
            return super().perceive(images, context)

    assert issubclass(Counting, Expert)
    from moai.answering import Augmented
    from moai.perception.running.perceiver import Perceiver

    augmented = Augmented(model, processor, Perceiver([Counting()]))
    path = tmp_path / "photo.png"
    tiny.picture("blue").save(path)
    answer = augmented.ask(path, QUESTION)
    assert calls == [1] and answer.perception.segments[0].label == "blue"
    assert augmented.ask(None, QUESTION).perception.segments == () and calls == [1]
