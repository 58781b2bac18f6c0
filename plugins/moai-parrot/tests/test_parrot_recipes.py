"""Parrot's recipes: the published one at full size without memory, and two twins that differ in the mixture alone."""

from __future__ import annotations

import pytest
import torch
from moai_parrot.connector import ParrotConnector
from transformers import AutoModelForCausalLM, CLIPVisionConfig, CLIPVisionModel, Qwen2Config
from transformers.initialization import no_init_weights

from moai.model.config import MoaiConfig
from moai.model.encoders.connectors import TextInput
from moai.model.encoders.vision import VisionEncoder
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import parts_of, set_connector_parts
from moai.plugins import load_registry
from moai.recipe.loading import load_recipe
from moai.training.build_settings import trained_parts

QWEN = {  # Qwen1.5-7B-Chat, as its config.json has it
    "vocab_size": 151936, "hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 32, "max_position_embeddings": 32768,
    "tie_word_embeddings": False,
}  # fmt: skip
CLIP = {  # openai/clip-vit-large-patch14-336's vision half
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14,
}  # fmt: skip


def test_the_names_are_registered():
    known = load_registry(plugins=[])
    assert "parrot" in known.connectors
    assert {"parrot", "parrot-twin", "llava-twin-multilingual"} <= set(known.recipes)


@pytest.fixture(scope="module")
def full():
    """The recipe and its model, without memory."""
    recipe = load_recipe("parrot")
    vision, connector = recipe.vision, recipe.vision.connector
    with torch.device("meta"), no_init_weights():
        host = AutoModelForCausalLM.from_config(Qwen2Config(**QWEN))
        encoder = VisionEncoder(CLIPVisionModel(CLIPVisionConfig(**CLIP)), 1024, vision.layer, vision.drop_first)
        config = MoaiConfig(
            text_config=host.config,
            host={},
            vision={"kind": vision.kind},
            connector=connector.model_dump(),
            image_tokens=577,
            **trained_parts(recipe),
        )
        return recipe, MoaiForConditionalGeneration(config, host=host, vision=encoder)


def test_an_image_of_the_full_model_is_577_tokens(full):
    recipe, model = full
    size = recipe.vision.image_size
    seen = model.images.vision(torch.zeros(2, 3, size, size, device="meta"))
    assert seen.patches.shape == (2, 576, 1024) and seen.class_token.shape == (2, 1024)
    text = TextInput(torch.empty(2, 40, 4096, device="meta"), torch.ones(2, 40, dtype=torch.bool, device="meta"))
    assert model.images.connector(seen, text).shape == (2, 577, 4096)
    assert model.images.connector.tokens(576) == 577


def test_what_each_stage_of_the_full_model_trains(full):
    recipe, model = full
    align, instruct = recipe.stages
    counts = []
    for stage in (align, instruct):
        set_connector_parts(model, stage.connector)
        parts = parts_of(model)
        counts.append({name: sum(p.numel() for p in parts[name].values()) for name in stage.train.parts()})
    assert counts[0] == {"connector": 20_979_712}  # LLaVA-1.5's projector
    assert counts[1]["connector"] == 20_979_712 + 302_014_464
    assert counts[1]["host"] == sum(p.numel() for p in model.host.parameters()) > 7.7e9
    assert [(s.batch_size, s.train.connector.rate, s.epochs) for s in (align, instruct)] == [
        (256, 1e-3, 1), (128, 2e-5, 1),
    ]  # fmt: skip


def test_the_full_recipes_stages_choose_their_data():
    recipe = load_recipe("parrot")
    kinds = [source.kind for source in recipe.data.sources]
    assert kinds == ["caption"] * 3 + ["instruction"] * 6
    assert [stage.sampling_rate_by_type for stage in recipe.stages] == [{"instruction": 0}, {"caption": 0}]


def test_the_twins_differ_in_the_mixture_alone():
    parrot, llava = (load_recipe(name).model_dump() for name in ("parrot-twin", "llava-twin-multilingual"))
    connector, plain = (recipe["vision"].pop("connector") for recipe in (parrot, llava))
    assert (connector["kind"], plain["kind"], plain["options"]) == ("parrot", "mlp", {})
    assert ParrotConnector(4, 8, **{**connector["options"], "expert_width": 2}).tokens(9) == 9
    assert [stage.pop("connector") for stage in parrot["stages"]] == [{"mixture": False}, {}]
    assert [stage.pop("connector") for stage in llava["stages"]] == [{}, {}]
    assert (parrot.pop("name"), llava.pop("name")) == ("parrot-twin", "llava-twin-multilingual")
    assert parrot == llava
    assert sum(llava["data"]["sources"][1]["options"]["languages"].values()) == 0.5
