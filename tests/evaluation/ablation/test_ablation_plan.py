"""Which trainings a folder of ablations means, and that the shipped ones are what they say."""

import re
import shlex
from pathlib import Path

import click
import pytest

from moai.cli.main import cli
from moai.errors import RecipeError
from moai.evaluation.ablation.plan import plan_ablations

SHIPPED = Path(__file__).parents[3] / "recipes" / "ablations"
BASE = """
version: 1
host: {reference: host}
vision: {kind: encoder, reference: eye}
compressor: {latents: 64, depth: 2}
stages: [{name: modules, steps: 40, routing: random_module}, {name: gates, steps: 160, continues: true}]
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    made = tmp_path / "ablations"
    made.mkdir()
    for name, text in {
        "few": "compressor: {latents: 16}",
        "deep": "compressor: {depth: 4}",
        "one-step": "stages: [{name: modules, drop: true}, {name: gates, steps: 200, continues: false}]",
    }.items():
        (made / f"{name}.yaml").write_text(f"extends: ../base.yaml\n{text}\n")
    return made


def test_the_base_comes_first_and_each_says_what_it_changes(folder):
    planned = plan_ablations(folder)
    assert [a.name for a in planned] == ["base", "deep", "few", "one-step"]
    assert planned[0].changed == {} and planned[2].changed == {"compressor.latents": 16}
    assert planned[3].changed == {
        "stages.modules.drop": True,
        "stages.gates.steps": 200,
        "stages.gates.continues": False,
    }
    assert (planned[2].recipe.compressor.latents, planned[2].recipe.compressor.depth) == (16, 2)


def test_only_keeps_some_and_always_the_base(folder):
    assert [a.name for a in plan_ablations(folder, only=["few"])] == ["base", "few"]
    with pytest.raises(RecipeError, match="no recipe 'fwe'; did you mean 'few'"):
        plan_ablations(folder, only=["fwe"])


def test_what_is_set_for_all_does_not_undo_an_ablation(folder):
    planned = {a.name: a.recipe for a in plan_ablations(folder, overrides=["compressor.latents=32", "seed=3"])}
    assert {name: r.compressor.latents for name, r in planned.items()} == {
        "base": 32,
        "deep": 32,
        "few": 16,
        "one-step": 32,
    }
    assert {r.seed for r in planned.values()} == {3}


def test_an_ablation_that_changes_nothing_is_left_out_and_said(folder, caplog):
    planned = plan_ablations(folder, overrides=["compressor.latents=16"])
    assert [a.name for a in planned] == ["base", "deep", "one-step"]
    assert "few changes nothing of base as it is set here" in caplog.text


def test_all_are_shortened_alike(folder):
    planned = {a.name: a.recipe.stages for a in plan_ablations(folder, steps=10)}
    assert {name: [stage.steps for stage in stages] for name, stages in planned.items()} == {
        "base": [2, 8],
        "deep": [2, 8],
        "few": [2, 8],
        "one-step": [10],
    }
    assert {stage.schedule.warmup for stages in planned.values() for stage in stages} == {1}
    assert plan_ablations(folder, steps=400)[0].recipe.stages[0].schedule.warmup == 20
    with pytest.raises(RecipeError, match="has 2 stages with objective: answers; give as many steps"):
        plan_ablations(folder, steps=1)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("version: 1", "extends nothing; an ablation extends the recipe it is compared with"),
        ("extends: ../other.yaml", "ablations of one table extend one recipe"),
        ("extends: ../base.yaml\ncompressor: {latent: 3}", "unknown key; did you mean 'latents'"),
    ],
)
def test_recipes_that_do_not_belong_together(folder, text, words):
    (folder.parent / "other.yaml").write_text(BASE)
    (folder / "odd.yaml").write_text(text + "\n")
    with pytest.raises(RecipeError, match=words):
        plan_ablations(folder)


def test_a_folder_without_recipes_and_a_base_that_is_not_there(folder, tmp_path):
    with pytest.raises(RecipeError, match="there are no recipes in .*nothing.*known: ablations, ablations-guided"):
        plan_ablations(tmp_path / "nothing")
    (tmp_path / "base.yaml").unlink()
    with pytest.raises(RecipeError, match="extends '../base.yaml', which is not there"):
        plan_ablations(folder)


# The shipped ones ---------------------------------------------------------------------------------------------------


def test_the_shipped_ablations_are_those_that_were_asked_for():
    planned = {a.name: a for a in plan_ablations(SHIPPED)}
    assert set(planned) == {"two-step", *(path.stem for path in SHIPPED.glob("*.yaml"))}, "each changes something"
    recipes = {name: a.recipe for name, a in planned.items()}
    base = recipes["two-step"]
    routings = {name: [stage.routing for stage in recipe.stages] for name, recipe in recipes.items()}
    assert routings["two-step"] == ["random_module", "gates"]
    assert {base.compressor.latents, *(recipes[f"latents-{n}"].compressor.latents for n in (16, 32, 128))} == {
        16,
        32,
        64,
        128,
    }
    for n in (2, 4, 8):
        assert (recipes[f"every-{n}"].mixer.layers, recipes[f"every-{n}"].mixer.every) == (None, n)
    for expert in base.perception.experts:
        left = recipes[f"without-{expert}"].perception.experts
        assert left == tuple(other for other in base.perception.experts if other != expert)
    assert routings["step1-only"] == ["random_module"] * 2 and routings["step2-only"] == ["gates"] * 2


def test_each_ablation_of_guided_reading_changes_what_its_name_says():
    folder = SHIPPED.with_name("ablations-guided")
    listed = {a.name: a for a in plan_ablations(folder)}
    assert set(listed) == {"easy-vqa", *(path.stem for path in folder.glob("guided-*.yaml"))}
    planned = {name.removeprefix("guided-"): a for name, a in listed.items()}
    changed = {name: set(a.changed) for name, a in planned.items()}
    for name in ("no-fact-context", "no-context-layer", "word-order"):
        assert changed[name] == {f"perception.{name.removeprefix('no-').replace('-', '_')}"}
    for name in ("no-question-context", "no-null-token", "copy-words"):
        assert changed[name] == {f"mixer.{name.removeprefix('no-').replace('-', '_')}"}
    assert changed["no-tied-qk"] == {"mixer.tie_qk_at_init"}
    assert changed["no-supervision"] == {"training.attention_supervision"}
    assert changed["no-align-no-supervision"] == changed["no-align"] | changed["no-supervision"]
    assert changed["no-align"] == {"stages.align.drop"}
    routing = {"stages.modules.routing", "stages.modules.train.gates"}
    assert changed["both-steps"] == routing < changed["step1-only"]


@pytest.mark.parametrize("name", ["ablations", "ablations-guided"])
def test_the_shipped_ablations_train_as_long_as_their_base(name):
    planned = plan_ablations(SHIPPED.with_name(name))
    lengths = {sum(s.steps for s in a.recipe.stages if s.objective == "answers") for a in planned}
    sizes = {(a.recipe.training.batch_size, a.recipe.seed, str(a.recipe.data), a.recipe.host) for a in planned}
    assert len(lengths) == len(sizes) == 1


DOCS = SHIPPED.parents[1] / "docs" / "ablations.md"


def test_the_docs_name_every_shipped_recipe_and_commands_that_exist():
    text = DOCS.read_text(encoding="utf-8")
    assert {path.stem for path in SHIPPED.parent.glob("ablations*/*.yaml")} <= set(re.findall(r"`([a-z0-9-]+)`", text))
    commands = re.findall(r"^moai (\S+) ?(.*)$", text, re.MULTILINE)
    assert {name for name, _ in commands} == {"ablate"}
    for name, arguments in commands:
        cli.get_command(click.Context(cli), name).make_context(name, shlex.split(arguments))
