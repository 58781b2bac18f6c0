"""The reference of a recipe's keys, made of the schema: the page docs/recipe.md, and the JSON schema for editors.

Knows: the schema, and recipes as files. ``python -m moai.recipe.reference``, in a clone, writes both anew.
"""

from __future__ import annotations

import json
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from moai.errors import RecipeError
from moai.recipe.schema import Recipe
from moai.recipe.yaml_file import read_yaml

SCHEMA = Path(__file__).with_name("recipe.schema.json")
CLONE = Path(__file__).parents[2]
COMMAND = "python -m moai.recipe.reference"
NAMES = {str: "text", int: "integer", float: "number", bool: "true or false", Any: "anything", type(None): "null"}
ITEM = "[]"  # after the name of a list of sections: the keys of each
LIMITS = {"ge": ">=", "gt": ">", "le": "<=", "lt": "<"}
Setters = dict[str, list[tuple[str, Any]]]  # dotted key -> name and value of each recipe that sets it
DROP = "Whether the stage of this name, which another recipe lists, is left out."
EXTENDS = "A recipe that this one changes: a file beside it, or a recipe's name."

INTRODUCTION = """\
# Keys of a recipe

A recipe is a YAML file for `moai train`. This page is made of the schema by `python -m moai.recipe.reference`; do not
edit it by hand. Unknown keys and wrong values are refused, with the nearest name.

- A dot stands for one level: `training.batch_size` is `batch_size` under `training:`. On the command line,
  `training.batch_size=8` changes a key. `data.sources[].format` is a key of each mapping of a list, which is set whole.
- `extends: NAME`, at the top of a file, takes over all keys of another recipe, one level deep. Mappings join, and
  everything else replaces, lists too. A mapping of another `kind` replaces the base's, and an
  empty one, `{}`, leaves nothing of it.
- `stages` is a list. A recipe that extends another changes its stages by their `name`; new ones come last, and
  `{name: NAME, drop: true}` leaves one out. On the command line, `stages.NAME.steps=2` changes a key of one.
- A part under `train` may be a number, its rate. `null` leaves a part out that the base trains.
- A default of `-` is a key that must be given.
- "Set by" names the recipes that set the key themselves. `ablations/*` are all those in that folder that do.

Editors complete and check keys by the JSON schema that comes with the package. This prints its path:

```sh
python -c "from moai.recipe.reference import SCHEMA; print(SCHEMA)"
```

An editor with the YAML language server takes the path from a first line `# yaml-language-server: $schema=PATH`, or from
its setting `yaml.schemas`. Our own recipes have no such line, since the path is another on every machine.
"""


class Key(NamedTuple):
    """A key of a recipe."""

    name: str  # dotted
    field: FieldInfo
    default: Any  # PydanticUndefined where it must be given

    @property
    def type(self) -> str:
        """The type in words, with its limits."""
        limits = [f"{LIMITS[n]} {getattr(m, n):g}" for m in self.field.metadata for n in LIMITS if hasattr(m, n)]
        return ", ".join([type_in_words(self.field.annotation), *limits])


def keys_of(section: type[BaseModel], prefix: str = "", given: BaseModel | None = None) -> Iterator[Key]:
    """List the keys of a section and of the sections in it, in order.

    Args:
        section: a class of the schema.
        prefix: the section's own dotted name, with a dot at its end.
        given: the section as it is when it is left out, where its defaults are others than the class's.
    """
    for name, field in section.model_fields.items():
        default = field.get_default(call_default_factory=True) if given is None else getattr(given, name)
        inner, listed = sections_in(field.annotation), typing.get_origin(field.annotation) is tuple
        if not inner or listed:
            yield Key(prefix + name, field, default)
        for part in inner:
            own = default if isinstance(default, part) else None
            yield from keys_of(part, f"{prefix}{name}{ITEM if listed else ''}.", own)


def sections_in(annotation: Any) -> list[type[BaseModel]]:
    """Return the classes of the schema that a key's type names: several for a tagged union."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [part for argument in typing.get_args(annotation) for part in sections_in(argument)]


def type_in_words(annotation: Any) -> str:
    """Name a type as the page writes it: ``"list of text"``, ``"mapping"``, ``"`gates` or `random_module`"``."""
    origin, arguments = typing.get_origin(annotation), typing.get_args(annotation)
    if annotation in NAMES:
        return NAMES[annotation]
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return "mapping"
    if origin is typing.Literal:
        return _one_of([f"`{value}`" for value in arguments])
    if origin is tuple:
        return f"list of {'' if arguments[-1] is Ellipsis else f'{len(arguments)} '}{_plural(arguments[0])}"
    if origin is dict:
        return "mapping"
    if origin is typing.Annotated:
        return type_in_words(arguments[0])
    return _one_of([type_in_words(argument) for argument in arguments])  # a union


def recipe_page(recipes: Mapping[str, Path]) -> str:
    """Write the page of all keys.

    Args:
        recipes: name -> file, of the recipes that "set by" may name.
    """
    setters = _setters(recipes)
    top = [key for key in keys_of(Recipe) if "." not in key.name]
    parts = [INTRODUCTION, "## At the top\n", _table(top, setters)]
    for name, field in Recipe.model_fields.items():
        inner = sections_in(field.annotation)
        for section in inner:
            given = field.default if isinstance(field.default, section) else None
            kind = f", `kind: {_kind(section)}`" if len(inner) > 1 else ""
            parts += [f"## `{name}`{kind}\n", f"{section.__doc__}\n"]
            listed = ITEM if type_in_words(field.annotation).startswith("list") else ""
            parts += [_table(list(keys_of(section, f"{name}{listed}.", given)), setters)]
    return "\n".join(parts)


def json_schema() -> dict[str, Any]:
    """Make the JSON schema of a recipe's file.

    A file that extends another may leave out any key, those that a whole recipe must have as well.
    """
    made = Recipe.model_json_schema()
    for part in (made, *made["$defs"].values()):
        part.pop("required", None)
        part.pop("title", None)
        for value in part["properties"].values():
            value.pop("title", None)
            if "discriminator" in value:  # the kind may be the base's
                del value["discriminator"]
                value["anyOf"] = value.pop("oneOf")
    made["$defs"]["Stage"]["properties"]["drop"] = {"type": "boolean", "description": DROP}
    made["properties"] = {"extends": {"type": "string", "description": EXTENDS}, **made["properties"]}
    needed = [name for name, field in Recipe.model_fields.items() if field.is_required() and name != "name"]
    head = {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "A recipe of moai"}
    return {**head, **made, "anyOf": [{"required": ["extends"]}, {"required": needed}]}


def shipped_recipes(clone: Path = CLONE) -> dict[str, Path]:
    """Find the recipes of a clone by name: those of moai, then those of its plugins.

    Raises:
        RecipeError: the folder is no clone of moai.
    """
    folders = [clone / "recipes", *sorted(clone.glob("plugins/*/*/recipes"))]
    if not folders[0].is_dir() or not (clone / "docs").is_dir():
        raise RecipeError(
            f"{clone} is no clone of moai; run `{COMMAND}` with moai installed from one (pip install -e .)"
        )
    files = [(folder, path) for folder in folders for path in sorted(folder.rglob("*.yaml"))]
    return {path.relative_to(folder).with_suffix("").as_posix(): path for folder, path in files}


def written(clone: Path = CLONE) -> dict[Path, str]:
    """Make the files that this module writes: path -> text."""
    page = recipe_page(shipped_recipes(clone))
    schema = json.dumps(json_schema(), indent=1, ensure_ascii=False) + "\n"
    return {clone / "docs" / "recipe.md": page, clone / SCHEMA.relative_to(CLONE): schema}


def _table(keys: list[Key], setters: Setters) -> str:
    lines = ["| key | type | default | what it does | set by |", "| --- | --- | --- | --- | --- |"]
    for key in keys:
        default = "-" if key.default is PydanticUndefined else f"`{json.dumps(_plain(key.default))}`"
        names = ", ".join(dict.fromkeys(name for name, value in setters.get(key.name, []) if _fits(key, value)))
        lines.append(f"| `{key.name}` | {key.type} | {default} | {key.field.description} | {names} |")
    return "\n".join([*lines, ""])


def _setters(recipes: Mapping[str, Path]) -> Setters:
    """Dotted key -> name and value of the recipes that set it; those of a folder under one name."""
    known = {key.name for key in keys_of(Recipe)}
    found: Setters = {}
    for name, path in recipes.items():
        shown = f"`{name.partition('/')[0]}/*`" if "/" in name else f"`{name}`"
        for key, value in _set_in(read_yaml(path), known):
            found.setdefault(key, []).append((shown, value))
    return found


def _set_in(data: Mapping[str, Any], known: set[str], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in data.items():
        if prefix + name in known:
            yield prefix + name, value
        if isinstance(value, list) and any(key.startswith(f"{prefix}{name}{ITEM}.") for key in known):
            for one in value:
                yield from _set_in(one, known, f"{prefix}{name}{ITEM}.")
        elif f"{prefix}{name}.rate" in known and isinstance(value, (int, float, str)):
            yield f"{prefix}{name}.rate", value
        elif isinstance(value, Mapping):
            yield from _set_in(value, known, f"{prefix}{name}.")


def _fits(key: Key, value: Any) -> bool:
    """False for the tag of another member of a union, whose key has the same name."""
    return typing.get_origin(key.field.annotation) is not typing.Literal or value in typing.get_args(
        key.field.annotation
    )


def _kind(section: type[BaseModel]) -> str:
    return typing.get_args(section.model_fields["kind"].annotation)[0]


def _one_of(names: list[str]) -> str:
    return " or ".join(filter(None, [", ".join(names[:-1]), names[-1]]))


def _plain(value: Any) -> Any:
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json", exclude_defaults=True)
    return [_plain(one) for one in value] if isinstance(value, tuple) else value


def _plural(annotation: Any) -> str:
    word = type_in_words(annotation)
    return {"text": "texts", "integer": "integers", "number": "numbers", "mapping": "mappings"}.get(word, word)


def main() -> None:
    """Write the page and the JSON schema of the clone that moai is installed from."""
    for path, text in written().items():
        path.write_text(text, encoding="utf-8")
        print(path.relative_to(CLONE))


if __name__ == "__main__":
    main()
