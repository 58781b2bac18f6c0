"""Parrot in a model: the text of an image's turn in training and in answers, stages with and without the mixture."""

from __future__ import annotations

import pytest
import tiny
import torch

import moai
from moai.errors import PromptError, RecipeError
from moai.model.parts import parts_of
from moai.training.log import read_log
from moai.training.memory_plan.plan import plan
from moai.training.run import Run
from moai.training.trainer import train
from moai.types import IMAGE, Conversation, Turn

OPTIONS = {"query": "mean", "expert_width": 32}
TURNS = (
    Turn("system", "Be short."),
    Turn("user", (IMAGE, "What color is it?")), Turn("assistant", "red"),
    Turn("user", ("Is ", IMAGE, " red?")), Turn("assistant", "no"),
    Turn("user", "Sure?"), Turn("assistant", "yes"),
)  # fmt: skip
PICTURES = (tiny.picture("red"), tiny.picture("blue"))
LONG = Conversation(TURNS, PICTURES)


def vision(**options):
    return {**tiny.recipe().vision.model_dump(), "connector": {"kind": "parrot", "options": {**OPTIONS, **options}}}


@pytest.fixture(scope="module")
def made():
    return tiny.made(vision=vision())


def batch_of(processor, *conversations, labels=True):
    return dict(processor.batch(conversations, [[None] * len(c.images) for c in conversations], labels=labels))


@torch.no_grad()
def logits(model, batch):
    return model(**{name: value for name, value in batch.items() if name != "labels"}).logits


@torch.no_grad()
def image_tokens(model, processor, conversation, labels=True):
    """The tokens of each image of one conversation."""
    batch = batch_of(processor, conversation, labels=labels)
    words = batch["prompt_mask"] & (batch["input_ids"] != processor.image_token_id)
    found = model.images.encode(batch["pixel_values"], batch["input_ids"], words=words)[0]
    return found.unflatten(0, (len(conversation.images), -1))


def with_turn(number, *content):
    return Conversation((*TURNS[:number], Turn(TURNS[number].role, content), *TURNS[number + 1 :]), PICTURES)


@pytest.mark.parametrize(
    ("changed", "moved"),
    [
        (with_turn(1, IMAGE, "How large?"), [True, False]),
        (with_turn(3, "And ", IMAGE, " blue?"), [False, True]),
        (with_turn(3, "Is ", IMAGE, " green?"), [False, True]),  # what follows the image in its turn counts, too
        (with_turn(2, "a most blue answer"), [False, False]),
        (with_turn(4, "indeed"), [False, False]),
        (with_turn(5, "Really?"), [False, False]),
        (with_turn(0, "Be long."), [True, False]),  # the system prompt stands in the first turn
    ],
)
def test_an_image_is_mixed_by_the_words_of_its_own_turn(made, changed, moved):
    before, after = (image_tokens(*made, conversation) for conversation in (LONG, changed))
    distances = (before - after).abs().amax(dim=(1, 2))
    assert (distances > 1e-3).tolist() == moved and not distances[~torch.tensor(moved)].any()


def test_training_and_answering_mix_by_the_same_text(made):
    """An image's tokens in a labelled conversation are those of every prompt that ends in a turn of it."""
    trained = image_tokens(*made, LONG)
    assert trained[1].abs().max() > 0.1, "a second image must not be zero"
    for turns, images in ((2, 1), (4, 2), (6, 2)):
        asked = image_tokens(*made, Conversation(TURNS[:turns], PICTURES[:images]), labels=False)
        torch.testing.assert_close(asked, trained[:images], atol=1e-4 * float(trained.abs().max()), rtol=0)


def test_what_is_learnt_of_a_turn_is_what_is_asked_for_it(made):
    model, processor = made
    batch = batch_of(processor, LONG)
    found, labels = logits(model, batch)[0], batch["labels"][0]
    begins = [at for at in range(1, len(labels)) if labels[at] != -100 and labels[at - 1] == -100]
    for begin, turns, images in zip(begins, (2, 4, 6), (1, 2, 2), strict=True):
        asked = batch_of(processor, Conversation(TURNS[:turns], PICTURES[:images]), labels=False)
        torch.testing.assert_close(logits(model, asked)[0, -1], found[begin - 1], atol=1e-4, rtol=0)


def test_rows_are_as_if_alone(made):
    model, processor = made
    rows = [LONG, Conversation.ask("Hello?", (), "hi"), Conversation.ask("Which of the two?", PICTURES, "both")]
    together = batch_of(processor, *rows)
    found = logits(model, together)
    for index, conversation in enumerate(rows):
        alone = logits(model, batch_of(processor, conversation))[0]
        torch.testing.assert_close(found[index][together["attention_mask"][index].bool()], alone, atol=1e-4, rtol=0)


def test_a_chat_goes_on_from_a_cache_as_from_the_start(made):
    model, processor = made
    first = batch_of(processor, Conversation(TURNS[:2], PICTURES[:1]), labels=False)
    output = model.generate(**first, max_new_tokens=3, do_sample=False, return_dict_in_generate=True)
    said = output.sequences[:, first["input_ids"].shape[1] :]
    second = Turn("user", ("Is ", IMAGE, " red?"))
    more = batch_of(processor, Conversation((TURNS[0], second), PICTURES[1:]), labels=False)
    whole = {
        "input_ids": torch.cat([first["input_ids"], said, more["input_ids"]], dim=1),
        "prompt_mask": torch.cat([first["prompt_mask"], torch.zeros_like(said).bool(), more["prompt_mask"]], dim=1),
        "pixel_values": torch.cat([first["pixel_values"], more["pixel_values"]]),
    }
    whole["attention_mask"] = torch.ones_like(whole["input_ids"])
    anew = model.generate(**whole, max_new_tokens=4, do_sample=False)
    going_on = model.generate(**whole, max_new_tokens=4, do_sample=False, cache=output.past_key_values)
    assert torch.equal(anew, going_on)


@torch.no_grad()
def test_a_panoptic_map_is_perception_and_read_by_no_question(made):
    model, processor = made
    seen = [[tiny.seen("red circle")]]
    one, two = (
        dict(processor.batch([Conversation.ask(question, PICTURES[:1])], seen)) for question in ("What?", "Is it red?")
    )
    assert one["aux_pixel_values"].shape[1] == 1
    projected = model.images.connector.projector(model.images.vision(one["aux_pixel_values"][0]))
    torch.testing.assert_close(model.images.encode_maps(one["aux_pixel_values"][0]), projected)
    aux = [model.auxiliary(**{k[4:]: v for k, v in batch.items() if k.startswith("aux_")})[0] for batch in (one, two)]
    assert torch.equal(*aux)
    states = [model.images.encode(batch["pixel_values"], batch["input_ids"]) for batch in (one, two)]
    assert not torch.allclose(*states, atol=1e-3), "the picture itself is"


def test_an_image_without_any_text_is_a_sentence(made):
    model, processor = made
    document = Conversation((Turn("text", (IMAGE, " A red thing.")),), PICTURES[:1], loss="all")
    batch = batch_of(processor, LONG, document)
    with pytest.raises(
        PromptError, match="row 1 has an image in a turn without any; write a question beside the image"
    ):
        model(**batch)


@pytest.mark.slow
def test_mixers_train_beside_the_mixture_and_the_host_stays(tmp_path, monkeypatch):
    """MoAI on Parrot's connector: both of MoAI's steps, with perception and panoptic maps."""
    tiny.register()
    tiny.draw_nothing(monkeypatch)
    recipe = tiny.recipe(vision=vision(), stages=[
        {"name": "modules", "steps": 2, "routing": "random_module", "image_dropout": 0.0},
        {"name": "gates", "steps": 2, "continues": True, "image_dropout": 0.0},
    ])  # fmt: skip
    fresh = tiny.made_of(recipe, 0.0)[0]
    train(recipe, tmp_path / "run")
    model = moai.load(tmp_path / "run").model
    assert all(torch.equal(a, b) for a, b in zip(model.host.parameters(), fresh.host.parameters(), strict=True))
    before, after = fresh.adapter_parameters(), model.adapter_parameters()
    moved = {name.split(".")[1] for name in after if not torch.equal(before[name], after[name])}
    assert {"projector", "mixture", "0", "2"} <= moved


# Stages ------------------------------------------------------------------------------------------------------------


def staged(*stages, **options):
    plain = {"perception": {"experts": []}, "mixer": {"layers": []}, "vision": vision(**options)}
    return tiny.recipe(**plain, stages=[{"steps": 2, "image_dropout": 0.0, **stage} for stage in stages])


ALIGN = {"name": "align", "train": {"connector": 1e-2}, "connector": {"mixture": False}}
INSTRUCT = {"name": "instruct", "train": {"connector": 1e-2, "host": 1e-3}}


@pytest.mark.slow
def test_the_mixture_is_left_out_of_one_stage_and_trains_in_the_next(tmp_path, monkeypatch):
    tiny.register()
    tiny.draw_nothing(monkeypatch)
    ran, moved = [], {}
    go = Run._run

    def watched(self, trainer, planned):
        connector = self.model.images.connector
        before = {name: p.detach().clone() for name, p in connector.named_parameters()}
        hook = connector.mixture.register_forward_hook(lambda *_: ran.append(planned.stage.name))
        go(self, trainer, planned)
        hook.remove()
        changed = {name.split(".")[0] for name, p in connector.named_parameters() if not torch.equal(p, before[name])}
        moved[planned.stage.name] = changed

    monkeypatch.setattr(Run, "_run", watched)
    train(staged(ALIGN, INSTRUCT, residual="published"), tmp_path / "run")
    assert moved == {"align": {"projector"}, "instruct": {"projector", "mixture"}}
    assert set(ran) == {"instruct"} and len(read_log(tmp_path / "run")) == 4
    loaded = moai.load(tmp_path / "run").model
    assert loaded.images.connector.left_out == frozenset() and "left_out" not in loaded.config.connector


@pytest.mark.slow
def test_a_run_without_its_mixture_answers_without_it_and_goes_on_exactly(tmp_path, monkeypatch):
    tiny.register()
    tiny.draw_nothing(monkeypatch)
    recipe = staged(ALIGN, {**ALIGN, "name": "more", "train": {"connector": 1e-3}}, residual="published")
    train(recipe, tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt), monkeypatch.context() as patch:
        tiny.interrupt(patch, 3)
        train(recipe, tmp_path / "cut")
    train(recipe, tmp_path / "cut", resume=True)
    one, two = (moai.load(tmp_path / name) for name in ("whole", "cut"))
    assert one.model.config.connector["left_out"] == ["mixture"] and not one.model.images.reads_text
    assert "mixture.router.weight" not in {name.split(".", 1)[1] for name in parts_of(one.model)["connector"]}
    for name, parameter in one.model.adapter_parameters().items():
        assert torch.equal(parameter, two.model.adapter_parameters()[name]), name
    document = Conversation((Turn("text", (IMAGE, " A red thing.")),), PICTURES[:1], loss="all")
    assert torch.isfinite(one.model(**batch_of(one.processor, document)).loss)


def test_a_stage_that_names_what_the_connector_has_not(tmp_path):
    tiny.register()
    with pytest.raises(RecipeError, match="'parrot' has no optional part 'moe': its optional parts are mixture; leave"):
        train(staged({**ALIGN, "connector": {"moe": False}}), tmp_path / "run")
    plain = tiny.recipe(
        stages=[{"name": "a", "steps": 1, "train": {"connector": 1e-3}, "connector": {"mixture": True}}]
    )
    with pytest.raises(RecipeError, match="connector 'mlp' has no optional part 'mixture': it has no optional parts"):
        train(plain, tmp_path / "run")


def test_options_of_another_connector(tmp_path):
    with pytest.raises(RecipeError, match="vision.connector.options does not fit connector 'parrot'.*'side'"):
        train(staged(INSTRUCT, side=3), tmp_path / "run")


@pytest.mark.parametrize("top_k", [None, 2])
def test_what_it_needs_in_memory_is_planned(top_k):
    found = plan(staged(ALIGN, INSTRUCT, top_k=top_k))
    [connector] = [part for part in found.parts if part.name == "connector"]
    assert connector.parameters == sum(p.numel() for p in parts_of(tiny.made(vision=vision())[0])["connector"].values())
    assert found.activations > 0
