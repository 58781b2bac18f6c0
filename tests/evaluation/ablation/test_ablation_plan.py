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
training: {step1: {steps: 40, routing: random_module}, step2: {steps: 160, routing: gates}, warmup: 20}
"""


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "base.yaml").write_text(BASE)
    made = tmp_path / "ablations"
    made.mkdir()
    for name, text in {
        "few": "compressor: {latents: 16}",
        "deep": "compressor: {depth: 4}",
        "one-step": "training: {step1: {steps: 0}, step2: {steps: 200}}",
    }.items():
        (made / f"{name}.yaml").write_text(f"extends: ../base.yaml\n{text}\n")
    return made


def test_the_base_comes_first_and_each_says_what_it_changes(folder):
    planned = plan_ablations(folder)
    assert [a.name for a in planned] == ["base", "deep", "few", "one-step"]
    assert planned[0].changed == {} and planned[2].changed == {"compressor.latents": 16}
    assert planned[3].changed == {"training.step1.steps": 0, "training.step2.steps": 200}
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
    planned = {a.name: a.recipe.training for a in plan_ablations(folder, steps=10)}
    assert {name: (t.step1.steps, t.step2.steps) for name, t in planned.items()} == {
        "base": (2, 8),
        "deep": (2, 8),
        "few": (2, 8),
        "one-step": (0, 10),
    }
    assert {t.warmup for t in planned.values()} == {1}
    assert plan_ablations(folder, steps=400)[0].recipe.training.warmup == 20


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
    assert (base.training.step1.routing, base.training.step2.routing) == ("random_module", "gates")
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
    only = {recipes["step1-only"].training.step2.routing, recipes["step1-only"].training.step1.routing}
    assert only == {"random_module"}
    assert {recipes["step2-only"].training.step1.routing, recipes["step2-only"].training.step2.routing} == {"gates"}


def test_each_ablation_of_guided_reading_changes_what_its_name_says():
    folder = SHIPPED.with_name("ablations-guided")
    listed = {a.name: a for a in plan_ablations(folder)}
    assert set(listed) == {"quickstart", *(path.stem for path in folder.glob("guided-*.yaml"))}
    planned = {name.removeprefix("guided-"): a for name, a in listed.items()}
    changed = {name: set(a.changed) for name, a in planned.items()}
    for name in ("no-fact-context", "no-context-layer", "word-order"):
        assert changed[name] == {f"perception.{name.removeprefix('no-').replace('-', '_')}"}
    for name in ("no-question-context", "no-null-token", "copy-words"):
        assert changed[name] == {f"mixer.{name.removeprefix('no-').replace('-', '_')}"}
    assert changed["no-tied-qk"] == {"mixer.tie_qk_at_init"}
    assert changed["no-supervision"] == {"training.attention_supervision"}
    assert changed["no-align-no-supervision"] == changed["no-align"] | changed["no-supervision"]
    assert changed["both-steps"] == {"training.step1.routing"} < changed["step1-only"]


@pytest.mark.parametrize("name", ["ablations", "ablations-guided"])
def test_the_shipped_ablations_train_as_long_as_their_base(name):
    planned = plan_ablations(SHIPPED.with_name(name))
    lengths = {a.recipe.training.step1.steps + a.recipe.training.step2.steps for a in planned}
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
