"""Recipes as files: the dialect, extends, overrides, and complaints that name the key and its fix."""

from __future__ import annotations

import sys
import types
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field

from moai.errors import RecipeError
from moai.recipe.loading import load_recipe, merge, resolve, validate
from moai.recipe.yaml_file import MAX_BYTES, parse_yaml, read_yaml


class Strict(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Mlp(Strict):
    kind: Literal["mlp"] = "mlp"
    depth: int = 2


class Average(Strict):
    kind: Literal["average"]
    tokens: int = 9


class Training(Strict):
    batch_size: int = 16
    learning_rate: float = 1e-3
    optimizer: Literal["adamw", "sgd"] = "adamw"


class Source(Strict):
    dataset: str
    weight: float = 1.0


class Recipe(Strict):
    version: Literal[1] = 1
    name: str
    training: Training = Training()
    connector: Annotated[Mlp | Average, Field(discriminator="kind")] = Mlp()
    data: list[Source] = []
    experts: dict[str, dict] = {}
    warmup: Training | None = None


@pytest.fixture
def write(tmp_path, monkeypatch):
    """``write("a.yaml", text)`` in a folder of its own that is also the working directory."""
    fake = types.ModuleType("moai.recipe.schema")
    fake.Recipe = Recipe
    monkeypatch.setitem(sys.modules, "moai.recipe.schema", fake)
    monkeypatch.chdir(tmp_path)

    def write(name, text):
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def complaint(path, *overrides):
    with pytest.raises(RecipeError) as caught:
        load_recipe(path, overrides)
    return str(caught.value)


def test_a_recipe_is_read_and_named_after_its_file(write):
    recipe = load_recipe(write("tiny.yaml", "training:\n  batch_size: 4\n  learning_rate: 1e-4\n"))
    assert (recipe.name, recipe.training.batch_size, recipe.training.learning_rate) == ("tiny", 4, 1e-4)


def test_extends_merges_mappings_and_replaces_lists(write):
    write("base.yaml", "name: base\ntraining: {batch_size: 4, optimizer: sgd}\ndata: [{dataset: a}, {dataset: b}]\n")
    recipe = load_recipe(write("child.yaml", "extends: base.yaml\ntraining: {batch_size: 8}\ndata: [{dataset: c}]\n"))
    assert recipe.name == "child"  # not "base": two runs would share one folder
    assert recipe.training == Training(batch_size=8, optimizer="sgd")
    assert [source.dataset for source in recipe.data] == ["c"]


def test_an_empty_mapping_leaves_nothing_of_the_bases(write):
    write("base.yaml", "training: {batch_size: 4}\nexperts: {shapes: {minimum: 3}, ocr: {}}\n")
    assert load_recipe(write("less.yaml", "extends: base.yaml\nexperts: {}\n")).experts == {}
    assert load_recipe(write("none.yaml", "extends: base.yaml\nexperts: {shapes: {}}\n")).experts["shapes"] == {}
    assert load_recipe(write("anew.yaml", "extends: base.yaml\ntraining: {}\n")).training == Training()
    path = write("other.yaml", "extends: base.yaml")
    assert load_recipe(path, ["experts={tally: {}}"]).experts == {"tally": {}}


def test_a_second_level_of_extends_is_refused(write):
    write("a.yaml", "")
    write("b.yaml", "extends: a.yaml\ntraining: {}")
    assert "only one level" in complaint(write("c.yaml", "extends: b.yaml"))


def test_a_missing_base_names_the_nearest(write):
    write("base.yaml", "training: {}")
    assert "did you mean 'base.yaml'?" in complaint(write("c.yaml", "extends: bas.yaml"))


@pytest.mark.parametrize("base", ["../../../../../../etc/passwd", "/etc/passwd", "sub/../../x.yaml", "secret.txt"])
def test_a_base_lies_beside_the_recipe_and_nothing_of_another_file_is_shown(write, base):
    write("secret.txt", "password")
    said = complaint(write("a.yaml", f"extends: {base}"))
    assert f"extends '{base}'" in said and "password" not in said and "root:" not in said


def test_merge_leaves_its_arguments_alone():
    base = {"a": {"b": 1}}
    assert merge(base, {"a": {"c": 2}}) == {"a": {"b": 1, "c": 2}}
    assert base == {"a": {"b": 1}}


def test_overrides_are_typed_and_nested(write):
    path = write("a.yaml", "training: {batch_size: 4}")
    overrides = ("training.batch_size=8", "training.learning_rate=2e-4", "experts.ocr.languages=[en, de]", "name=other")
    recipe = load_recipe(path, overrides)
    assert recipe.training == Training(batch_size=8, learning_rate=2e-4)
    assert recipe.experts == {"ocr": {"languages": ["en", "de"]}} and recipe.name == "other"


def test_an_override_may_hold_equals_signs_or_nothing(write):
    path = write("a.yaml", "warmup: {batch_size: 1}")
    assert load_recipe(path, ["warmup="]).warmup is None
    assert load_recipe(path, ["name=a=b"]).name == "a=b"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.batchsize=8", "training.batchsize: unknown key; did you mean 'batch_size'?"),
        ("trainings.batch_size=8", "trainings: unknown key; did you mean 'training'?"),
        ("batch_size", "write key=value"),
        ("=3", "write key=value"),
        ("name.first=x", "name is the text 'a' and has no keys"),
        ("training.batch_size=[", "training.batch_size=["),
    ],
)
def test_a_bad_override_is_named(write, override, words):
    assert words in complaint(write("a.yaml", "name: a"), override)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("training: {batch_sise: 4}", "training.batch_sise: unknown key; did you mean 'batch_size'?"),
        ("data: [{dataset: a, wieght: 2}]", "data.0.wieght: unknown key; did you mean 'weight'?"),
        ("connector: {kind: mlp, depht: 3}", "depht: unknown key; did you mean 'depth'?"),
        ("warmup: {batch_sise: 4}", "warmup.batch_sise: unknown key; did you mean 'batch_size'?"),
        ("training: {batch_size: many}", "training.batch_size: input should be a valid integer"),
        ("training: {optimizer: adam}", "'adam' is not one of adamw, sgd; did you mean 'adamw'?"),
        ("data: [{weight: 2}]", "data.0.dataset: missing; add it"),
        ("training: 3", "training: "),
    ],
)
def test_a_schema_error_is_one_line_with_its_key(write, text, words):
    message = complaint(write("a.yaml", text))
    assert words in message and "\n" not in message and "pydantic" not in message


def test_several_errors_are_several_lines(write):
    message = complaint(write("a.yaml", "training: {batch_size: x, optimiser: sgd}"))
    assert message.splitlines()[0] == "recipe a.yaml: 2 problems:"
    assert len(message.splitlines()) == 3


def test_duplicate_keys_are_refused_with_both_lines(write):
    path = write("a.yaml", "training:\n  batch_size: 4\n  optimizer: sgd\n  batch_size: 8\n")
    assert "line 4: 'batch_size' was given on line 2 already" in complaint(path)


def test_yaml_errors_name_the_line(write):
    assert "line 2" in complaint(write("a.yaml", "training: {batch_size: 4\nname: a\n"))


@pytest.mark.parametrize("text", ["- a\n- b", "just words", "", "3"])
def test_a_file_that_is_no_mapping_is_refused(write, text):
    assert "must hold 'key: value' lines" in complaint(write("a.yaml", text))


def test_code_in_yaml_is_refused(write):
    assert "constructor" in complaint(write("a.yaml", "name: !!python/object/apply:os.system ['true']"))


def test_an_alias_bomb_is_refused_before_it_is_built(write):
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 12)]
    assert "aliases" in complaint(write("a.yaml", "\n".join(lines)))


def test_an_alias_in_itself_is_refused(write):
    assert "contains itself" in complaint(write("a.yaml", "name: &n [*n]"))


def test_a_modest_alias_is_fine(write):
    recipe = load_recipe(write("a.yaml", "training: &t {batch_size: 3}\nwarmup: *t\n"))
    assert recipe.warmup.batch_size == 3


def test_huge_deep_and_binary_files_are_refused(write, tmp_path):
    assert "larger than" in complaint(write("a.yaml", "#" * (MAX_BYTES + 1)))
    assert "too deeply" in complaint(write("b.yaml", "name: " + "[" * 50_000))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe\x00name")
    assert "UTF-8" in complaint(tmp_path / "c.yaml")


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4), ("1E3", 1000.0), ("-.5", -0.5), (".inf", float("inf")), ("8", 8), ("-8", -8), ("010", 10),
        ("0x1F", 31), ("on", "on"), ("off", "off"), ("no", "no"), ("y", "y"), ("true", True), ("False", False),
        ("12:30:00", "12:30:00"), ("2024-01-01", "2024-01-01"), ("null", None), ("~", None), ("", None),
        ("[on, off, shuffled]", ["on", "off", "shuffled"]), ("1_000", "1_000"), ("e5", "e5"), (".", "."),
    ],
)  # fmt: skip
def test_values_have_yaml_1_2_types(text, value):
    found = parse_yaml(text, "here")
    assert found == value and type(found) is type(value)


def test_on_is_a_key_like_any_other(write):
    assert read_yaml(write("a.yaml", "on: 1\noff: 2")) == {"on": 1, "off": 2}


def test_resolve_drops_extends_and_validate_names_the_label(write):
    write("base.yaml", "training: {}")
    assert resolve(write("c.yaml", "extends: base.yaml")) == {"training": {}, "name": "c"}
    with pytest.raises(RecipeError, match="recipe somewhere: name: missing"):
        validate({}, Recipe, "somewhere")
