"""MM1's recipes: tokens of an image, the law's rates, the mixture, full sizes on meta tensors, and the twin's data."""

from __future__ import annotations

import json

import moai_mm1
import pytest
import torch
from moai_mm1.documents import caption_of, documents
from transformers import AutoModelForCausalLM, LlamaConfig

from moai.data.mixture import shares
from moai.errors import RecipeError
from moai.model.config import MoaiConfig
from moai.model.encoders.vision import build_vision
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.tiles import Tiles
from moai.recipe.loading import load_recipe
from moai.recipe.places import find_recipe
from moai.training.build import vision_arguments
from moai.training.build_settings import trained_parts
from moai.training.memory_plan.plan import plan
from moai.training.schedule import mm1_rate

# Llamas of about the parameters of MM1's, which are not published.
SIZES = {
    "mm1-3b": {"hidden_size": 2560, "intermediate_size": 8704, "num_hidden_layers": 32, "num_attention_heads": 32},
    "mm1-7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "mm1-30b": {"hidden_size": 6656, "intermediate_size": 17920, "num_hidden_layers": 56, "num_attention_heads": 52},
}  # fmt: skip
SIZES["mm1-3b-tiles"] = SIZES["mm1-3b"]
RATES = {"mm1-3b": 6e-5, "mm1-7b": 4e-5, "mm1-30b": 2e-5}  # the paper's
LAW = {9e6: 6.7e-4, 85e6: 2.6e-4, 302e6: 1.5e-4, 1.2e9: 8.6e-5, 3e9: 5.8e-5, 7e9: 4.1e-5, 30e9: 2.2e-5}


def recipe(name: str, *changes: str):
    return load_recipe(find_recipe(name), list(changes))


def on_meta(name: str) -> MoaiForConditionalGeneration:
    """The recipe's model without any memory; the host by numbers, the encoder by its architecture."""
    given = recipe(name)
    encoder = given.vision
    with torch.device("meta"):
        config = LlamaConfig(**SIZES[name], max_position_embeddings=4096)
        host = AutoModelForCausalLM.from_config(config, dtype=torch.float32, attn_implementation="sdpa")
        vision = build_vision(**{**vision_arguments(encoder), "reference": None})
        made = MoaiConfig(
            text_config=config, host={}, vision={"kind": "encoder"}, connector=encoder.connector.model_dump(),
            image_tokens=144, image_token_id=31999, **trained_parts(given),
        )  # fmt: skip
        return MoaiForConditionalGeneration(made, host=host, vision=vision)


@pytest.mark.parametrize("parameters, rate", LAW.items())
def test_the_law_gives_its_seven_values(parameters, rate):
    assert mm1_rate(int(parameters)) == pytest.approx(rate, rel=0.03)  # given to two digits


@pytest.mark.slow
@pytest.mark.parametrize("name", SIZES)
def test_the_full_sizes_are_built_and_encode_their_tokens(name):
    model, given = on_meta(name), recipe(name)
    size = given.vision.image_size
    host = sum(p.numel() for p in model.host.parameters())
    billions = float(name.split("-")[1].removesuffix("b"))
    assert host / 1e9 == pytest.approx(billions, rel=0.1)
    if name in RATES:
        assert mm1_rate(host) == pytest.approx(RATES[name], rel=0.1)
    pictures = 1 if given.vision.tiles is None else Tiles(**given.vision.tiles.model_dump()).pictures
    with torch.device("meta"):
        output = model.images.vision(torch.empty(pictures, 3, size, size))
        features = model.images.connector(output)
    assert features.shape == (pictures, 144, model.host.config.hidden_size)
    assert pictures * 144 == (720 if name == "mm1-3b-tiles" else 144)
    assert output.grid == ((48, 48) if name == "mm1-3b-tiles" else (27, 27))
    encoder = sum(p.numel() for p in model.images.vision.body.parameters())
    assert encoder / 1e6 == pytest.approx(632, rel=0.02)  # ViT-H/14


@pytest.mark.slow
@pytest.mark.parametrize("name, tokens", [("mm1-3b", 144), ("mm1-3b-tiles", 720)])
def test_a_plan_counts_an_images_tokens(name, tokens):
    small = "layers=2,width=128,heads=4,kv=4,ffn=256,vocab=300,context=4096"
    made = plan(recipe(name), host_shape=small)
    vision = next(part for part in made.parts if part.name == "vision")
    assert made.tokens["image"] == tokens and vision.gradients == vision.weights


def test_pre_training_trains_everything_by_the_law_on_45_45_10():
    for name in ("mm1-3b", "mm1-7b", "mm1-30b", "mm1-twin"):
        given = recipe(name)
        [stage] = given.stages
        parts = stage.train.parts()
        assert set(parts) == {"connector", "host", "vision"} and parts["host"].rate == parts["vision"].rate == "mm1"
        assert parts["host"].lora is None and parts["vision"].last is None and stage.weight_decay is None
        weights = [source.weight for source in given.data.sources]
        assert shares(torch.tensor(weights).numpy(), 1000).tolist() == [450, 450, 100]
        assert stage.schedule.kind == "cosine" and stage.schedule.final_rate == 0.1
    full = recipe("mm1-3b").stages[0]
    assert (full.steps, full.batch_size, full.schedule.warmup) == (200_000, 512, 2000)


def test_fine_tuning_cuts_the_last_image_into_five():
    given = recipe("mm1-3b-tiles")
    tiles = Tiles(**given.vision.tiles.model_dump())
    assert tiles.pictures * 144 == 720 and tiles.counts(3) == [1, 1, 5]
    assert given.vision.image_size * 2 == 1344
    [stage] = given.stages
    assert (stage.steps, stage.batch_size, stage.train.host.rate) == (10_000, 256, 1e-5)
    assert given.training.trainer["optim"] == "adafactor"


def test_the_recipes_are_registered():
    from moai.plugins import load_registry

    known = {name for name, path in load_registry().recipes.items() if "moai_mm1" in path.parts}
    assert known == {*SIZES, "mm1-twin"} and moai_mm1.__name__ == "moai_mm1"


# The twin's data ---------------------------------------------------------------------------------------------------


@pytest.fixture
def drawings(tmp_path, monkeypatch):
    """Five drawings of easy-VQA's layout, and its data set reading them."""
    from moai.plugin_api import registry

    rows = []
    for number, (color, shape) in enumerate([("blue", "circle"), ("red", "triangle"), ("green", "rectangle")] * 2):
        rows += [
            ["what color is the shape?", color, number],
            ["what shape is present?", shape, number],
            ["is there a red shape?", "yes" if color == "red" else "no", number],
        ]
    for folder in ("train", "test"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "questions.json").write_text(json.dumps(rows))
    own = registry().get_dataset("easy-vqa")
    monkeypatch.setitem(registry().datasets, "easy-vqa", lambda split: own(split, folder=tmp_path))
    return own("train", folder=tmp_path)


def test_captions_say_what_is_drawn(drawings):
    made = documents("train")
    texts = {sample.image_ids[0]: sample.conversation.turns[0].text for sample in made}
    assert len(made) == len({one.image_ids[0] for one in drawings})
    for image, text in texts.items():
        assert text == caption_of([one for one in drawings if one.image_ids[0] == image])
        assert text in ("a blue circle.", "a red triangle.", "a green rectangle.")
    assert all(sample.conversation.loss == "all" and sample.conversation.turns[0].images == 1 for sample in made)


def test_interleaved_documents_ask_of_each_drawing_what_it_shows(drawings):
    truth = {(one.image_ids[0], one.question): one.answer for one in drawings}
    made = documents("train", kind="interleaved")
    assert made and made == documents("train", kind="interleaved")
    for sample in made:
        turns = sample.conversation.turns
        assert 2 <= len(sample.images) <= 3 and sample.conversation.loss == "all"
        asked = zip(sample.image_ids, turns[::2], turns[1::2], strict=True)
        assert all(truth[image, user.text] == answer.text for image, user, answer in asked)
    used = [image for sample in made for image in sample.image_ids]
    assert len(used) == len(set(used))


def test_text_has_no_drawing_and_other_splits_are_the_questions(drawings):
    assert all(not sample.images and sample.conversation.loss == "all" for sample in documents("train", kind="text"))
    assert documents("test", kind="text") == documents("test") == []
    assert {one.question for one in documents("test", kind="interleaved")} == {one.question for one in drawings}


def test_unknown_kinds_are_sentences(drawings):
    with pytest.raises(RecipeError, match="has no kind 'caption'; did you mean 'captions'"):
        documents("train", kind="caption")
    with pytest.raises(RecipeError, match="has at least 2 drawings, not 1"):
        documents("train", kind="interleaved", most=1)
