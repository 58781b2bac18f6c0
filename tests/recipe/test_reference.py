"""docs/recipe.md and the JSON schema are what the schema says, and the JSON schema takes what a recipe's file holds."""

from __future__ import annotations

import json
from typing import Any

import pytest

from moai.errors import RecipeError
from moai.recipe import reference
from moai.recipe.loading import validate
from moai.recipe.reference import CLONE, COMMAND, SCHEMA, keys_of, shipped_recipes, type_in_words, written
from moai.recipe.schema import Recipe
from moai.recipe.yaml_file import read_yaml

TYPES = {"string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None), "array": list}


def problems(value: Any, schema: dict, whole: dict, key: str = "") -> list[str]:
    """The keys of a value that a JSON schema refuses, by the words of it that ours uses."""
    if "$ref" in schema:
        schema = whole["$defs"][schema["$ref"].rpartition("/")[2]] | {k: v for k, v in schema.items() if k != "$ref"}
    found = []
    if "anyOf" in schema and not any(problems(value, part, whole, key) == [] for part in schema["anyOf"]):
        found.append(key)
    found += [key] * (("const" in schema and value != schema["const"]) or value not in schema.get("enum", [value]))
    found += [name for name in schema.get("required", []) if name not in value]
    if "properties" in schema or schema.get("type") == "object":
        if not isinstance(value, dict):
            return [key]
        own, others = schema.get("properties", {}), schema.get("additionalProperties", True)
        for name, item in value.items():
            part = own.get(name, others)
            found += problems(item, part, whole, name) if isinstance(part, dict) else [] if part else [name]
    elif schema.get("type") == "array" and isinstance(value, list) and "items" in schema:
        found += [wrong for item in value for wrong in problems(item, schema["items"], whole, key)]
    elif "type" in schema:
        fits = isinstance(value, TYPES[schema["type"]]) and isinstance(value, bool) == (schema["type"] == "boolean")
        return found if fits and not _outside(value, schema) else [*found, key]
    return found


def _outside(value: Any, schema: dict) -> bool:
    return (
        ("minimum" in schema and value < schema["minimum"])
        or ("maximum" in schema and value > schema["maximum"])
        or ("exclusiveMinimum" in schema and value <= schema["exclusiveMinimum"])
    )


SCHEMA_TEXT = json.loads(SCHEMA.read_text(encoding="utf-8"))
RECIPES = shipped_recipes()


@pytest.mark.parametrize("path", written(), ids=lambda path: path.name)
def test_the_written_files_are_up_to_date(path):
    name = path.relative_to(CLONE)
    assert path.read_text(encoding="utf-8") == written()[path], f"{name} is out of date; run {COMMAND}, and commit it"


def test_every_key_has_one_sentence():
    keys = list(keys_of(Recipe))
    assert len(keys) > 60
    wrong = [k.name for k in keys if not (k.field.description or "").endswith(".") or ". " in k.field.description]
    assert wrong == [], (
        "end the description in moai/recipe/sections.py or stages.py with a full stop, and write one sentence"
    )


def test_keys_are_those_that_overrides_take():
    names = {key.name for key in keys_of(Recipe)}
    assert {"version", "stages[].routing", "vision.connector.kind", "perception.options"} <= names


@pytest.mark.parametrize(
    ("annotation", "words"),
    [(tuple[str, ...], "list of texts"), (float | None, "number or null"), (tuple[float, float], "list of 2 numbers")],
)
def test_types_are_words(annotation, words):
    assert type_in_words(annotation) == words


@pytest.mark.parametrize("name", RECIPES)
def test_the_json_schema_takes_a_shipped_recipe(name):
    assert problems(read_yaml(RECIPES[name]), SCHEMA_TEXT, SCHEMA_TEXT) == []


@pytest.mark.parametrize(
    ("data", "key"),
    [
        ({"extends": "easy-vqa", "mixer": {"ranks": 3}}, "ranks"),
        ({"extends": "easy-vqa", "mixer": {"rank": 0}}, "rank"),
        ({"extends": "easy-vqa", "vision": {"kind": "host", "image_size": 64}}, "vision"),
        ({"version": 1, "host": {"reference": "a/b"}}, ""),
        ({"extends": "easy-vqa", "stages": [{"name": "modules", "routing": "gate"}]}, "routing"),
    ],
)
def test_the_json_schema_refuses(data, key):
    assert key in problems(data, SCHEMA_TEXT, SCHEMA_TEXT)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (
            {"host": {}},
            "host.reference: missing; add it: hub id, local path, `wheel:NAME` of a pinned wheel, "
            "or `package:NAME/PATH` in a Python package",
        ),
        ({"mixer": {"rank": 0}}, "(given: 0); it means: rank of the attention modules' projections"),
    ],
)
def test_complaints_say_what_a_key_means(data, words):
    vision = {"kind": "encoder", "reference": "a/b"}
    whole = {"version": 1, "name": "x", "host": {"reference": "a/b"}, "vision": vision, **data}
    with pytest.raises(RecipeError) as caught:
        validate(whole, Recipe, "x.yaml")
    assert str(caught.value).endswith(words)


def test_a_folder_that_is_no_clone_is_refused(tmp_path):
    with pytest.raises(RecipeError, match="is no clone of moai"):
        shipped_recipes(tmp_path)


def test_the_page_names_who_sets_a_key(tmp_path):
    (tmp_path / "a.yaml").write_text("mixer: {rank: 8}\nvision: {kind: host}\n")
    page = reference.recipe_page({"mine": tmp_path / "a.yaml", "more/b": tmp_path / "a.yaml"})
    [rank] = [line for line in page.splitlines() if line.startswith("| `mixer.rank`")]
    assert rank.endswith("| `mine`, `more/*` |")
    kinds = [line for line in page.splitlines() if line.startswith("| `vision.kind`")]
    assert [("mine" in line) for line in kinds] == [False, True, False], "kinds encoder, host and none"
