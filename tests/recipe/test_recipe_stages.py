"""Stages of recipes: joined by name over a base, changed one by one on the command line, refused where they misfit."""

import pytest
import tiny

from moai.errors import RecipeError
from moai.recipe.loading import load_recipe

BASE = """
version: 1
host: {reference: a/b, dtype: float32}
vision: {kind: encoder, reference: a/b}
perception: {experts: [shapes]}
training: {batch_size: 8, schedule: {warmup: 5}}
stages:
  - {name: align, steps: 9, objective: attention, train: {mixers: 2.0e-3}}
  - {name: modules, steps: 4, routing: random_module, train: {connector: 1.0e-3, mixers: 1.0e-3}}
  - {name: gates, steps: 6, continues: true, train: {mixers: 1.0e-3, gates: mm1}, batch_size: 2}
"""


@pytest.fixture
def loaded(tmp_path):
    """``loaded(text, *overrides)``: the recipe of a file over the base."""
    (tmp_path / "base.yaml").write_text(BASE)

    def load(text="", *overrides):
        (tmp_path / "over.yaml").write_text(f"extends: base.yaml\n{text}\n")
        return load_recipe(tmp_path / "over.yaml", overrides)

    return load


def names(recipe):
    return [stage.name for stage in recipe.stages]


def test_what_a_stage_leaves_out_is_that_of_training(loaded):
    align, modules, gates = loaded().stages
    assert (modules.batch_size, modules.schedule.warmup, modules.schedule.kind) == (8, 5, "cosine")
    assert (gates.batch_size, gates.schedule, gates.train.gates.rate) == (2, modules.schedule, "mm1")
    assert (align.image_dropout, modules.image_dropout) == (0.0, 0.5)
    assert set(modules.train.parts()) == {"connector", "mixers"} and modules.train.mixers.rate == 1e-3


def test_stages_join_by_name_and_new_ones_come_last(loaded):
    text = "stages: [{name: finetune, epochs: 1, train: {host: {rate: 2e-5, lora: 4}}}, {name: gates, steps: 7}]"
    recipe = loaded(text)
    assert names(recipe) == ["align", "modules", "gates", "finetune"]
    assert (recipe.stages[2].steps, recipe.stages[2].batch_size) == (7, 2)
    assert recipe.stages[3].train.host.lora == 4


def test_a_part_of_the_base_is_left_out_by_null_and_a_stage_by_drop(loaded):
    recipe = loaded("stages: [{name: align, drop: true}, {name: modules, train: {connector: null, compressor: 1e-4}}]")
    assert names(recipe) == ["modules", "gates"]
    assert set(recipe.stages[0].train.parts()) == {"compressor", "mixers"}


def test_the_command_line_changes_one_stage(loaded):
    recipe = loaded("", "stages.modules.steps=2", "stages.gates.train.host={rate: 1e-4}", "stages.align.drop=true")
    assert names(recipe) == ["modules", "gates"] and recipe.stages[0].steps == 2
    assert recipe.stages[1].train.host.rate == 1e-4


def test_the_default_stages_may_be_changed_too(tmp_path):
    (tmp_path / "mine.yaml").write_text(BASE.partition("stages:")[0])
    recipe = load_recipe(tmp_path / "mine.yaml", ["stages.gates.steps=2"])
    assert [(stage.name, stage.steps, stage.continues) for stage in recipe.stages] == [
        ("modules", 100, False),
        ("gates", 2, True),
    ]


def test_a_resolved_recipe_is_read_again_as_itself(loaded, tmp_path):
    recipe = loaded()
    (tmp_path / "again.yaml").write_text(recipe.to_yaml())
    assert load_recipe(tmp_path / "again.yaml") == recipe


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("stages.module.steps=2", "there is no stage 'module'; did you mean 'modules'?"),
        ("stages.modules.stps=2", "stages.modules.stps: unknown key; did you mean 'steps'?"),
        ("stages.modules.epochs=1", "stages.modules needs a length: give either steps or epochs"),
        ("stages.modules.routing=gate", "stages.modules.routing: 'gate' is not one of"),
        ("stages.modules.train.mixers=.inf", "stages.modules.train.mixers.rate: a rate is a number above 0, or mm1"),
        ("stages.modules.train.mixers=true", "stages.modules.train.mixers"),
        ("stages.modules.train.gates=1e-3", "routing: random_module draws modules without gates"),
        ("stages.modules.continues=true", "stages.modules.continues needs a stage before it, both with"),
        ("stages.gates.schedule.warmup=1", "stages.gates continues the schedule of 'modules'; leave its own out"),
        ("stages.align.train.gates=1e-3", "objective: attention trains the mixers alone"),
        ("stages.align.drop=3", "stages.align.drop is the value 3; write true or false"),
        ("stages.gates.name=modules", "two stages are called 'modules'"),
        ("stages.gates.train.host={rate: 1e-4, targets: [q_proj]}", "targets are of low-rank adapters; give lora"),
        ("stages.gates.accumulation=3", "stages.gates: 3 parts of a batch of 2"),
        ("stages=[]", "stages: "),
        ("stages=3", "stages: "),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(loaded, override, sentence):
    with pytest.raises(RecipeError, match=sentence):
        loaded("", override)


@pytest.mark.parametrize("host", [{"dtype": "bfloat16"}, {"quantization": "nf4"}])
def test_a_host_in_half_precision_or_quantized_trains_adapters_only(host):
    whole, lora = ([tiny.stage(train={"host": {"rate": 1e-4, **form}})] for form in ({}, {"lora": 2}))
    with pytest.raises(ValueError, match="stages.gates.train.host: "):
        tiny.recipe(host=host, stages=whole)
    assert tiny.recipe(host=host, stages=lora).stages[0].train.host.lora == 2


def test_parts_of_a_connector_are_left_out_where_there_is_one():
    left_out = tiny.stage(train={"mixers": 1e-3}, connector={"mixture": False})
    assert tiny.recipe(stages=[left_out]).stages[0].connector == {"mixture": False}
    with pytest.raises(ValueError, match="stages.gates.connector needs vision.kind: encoder; leave it out"):
        tiny.recipe(vision={"kind": "host"}, stages=[left_out])


def test_the_attention_is_aligned_before_mixers_train():
    align = tiny.stage("align", objective="attention", train={"mixers": 1e-3})
    with pytest.raises(ValueError, match="'gates' trains them before it; move it before that stage"):
        tiny.recipe(stages=[tiny.stage(), align])
