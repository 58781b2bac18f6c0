"""From a YAML file and ``key=value`` overrides to a valid recipe; every complaint names its key and its fix.

Knows: one level of ``extends``, overrides, and how to word the schema's errors. The schema is in ``schema.py``, the
YAML dialect in ``yaml_file.py``, where names are looked up in ``places.py``.
"""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import BaseModel, ValidationError

from moai.errors import RecipeError, nearest
from moai.recipe.places import find_base, find_recipe
from moai.recipe.yaml_file import kind_of, parse_yaml, read_yaml

if TYPE_CHECKING:
    from moai.recipe.schema import Recipe


def load_recipe(path_or_name: str | Path, overrides: Sequence[str] = ()) -> Recipe:
    """Read, extend, override and validate a recipe.

    Args:
        path_or_name: a YAML file, or the name of one in ``./recipes`` or among those that come with moai.
        overrides: ``"training.batch_size=8"``; the value is read as YAML.

    Raises:
        RecipeError: missing file, bad YAML, unknown key, wrong value; one line per problem.
    """
    from moai.recipe.schema import Recipe

    path = find_recipe(path_or_name)
    return validate(resolve(path, overrides), Recipe, path.name)


def resolve(path: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """Return the file's data over its base's, with the overrides applied; ``name`` defaults to the file's own."""
    data = read_yaml(path)
    own_name = data.get("name", path.stem)
    base_name = data.pop("extends", None)
    if base_name is not None:
        data = merge(_read_base(path, base_name), data)
    data["name"] = own_name
    for override in overrides:
        _override(data, override)
    return without_dropped(data)


def without_dropped(data: dict[str, Any]) -> dict[str, Any]:
    """Leave out the stages that ``drop: true`` marks."""
    stages = data.get("stages")
    if not isinstance(stages, list):
        return data  # the schema says what it should be
    kept = []
    for stage in stages:
        drop = stage.get("drop", False) if isinstance(stage, Mapping) else False
        if not isinstance(drop, bool):
            raise RecipeError(f"stages.{stage.get('name')}.drop is {kind_of(drop)}; write true or false")
        if not drop:
            kept.append({k: v for k, v in stage.items() if k != "drop"} if isinstance(stage, Mapping) else stage)
    return {**data, "stages": kept}


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Deep merge: mappings join, anything else (lists too) is replaced by ``over``'s value.

    A mapping with another ``kind`` than the base's replaces it: keys of one kind mean nothing to another; so does an
    empty one, which leaves nothing of the base's.
    ``stages`` are joined by name.
    """
    joined = dict(base)
    for key, value in over.items():
        old = joined.get(key)
        if key == "stages" and isinstance(value, list) and isinstance(old, list):
            joined[key] = _merge_stages(old, value)
            continue
        both = isinstance(value, Mapping) and isinstance(old, Mapping)
        same = both and value and value.get("kind", old.get("kind")) == old.get("kind")
        joined[key] = merge(old, value) if same else value
    return joined


def _merge_stages(base: list[Any], over: list[Any]) -> list[Any]:
    """Stages of the base in their order, each with what one of its name changes; new ones come last."""
    changes = {stage.get("name"): stage for stage in over if isinstance(stage, Mapping)}
    known = {stage.get("name") for stage in base if isinstance(stage, Mapping)}
    if len(changes) < len(over):
        return over  # nameless or doubled: the schema complains
    joined = [
        merge(stage, changes.get(stage.get("name"), {})) if isinstance(stage, Mapping) else stage for stage in base
    ]
    return [*joined, *(stage for name, stage in changes.items() if name not in known)]


def validate(data: dict[str, Any], schema: type[BaseModel], label: str) -> Any:
    """Build the schema from data; RecipeError has one line per problem."""
    try:
        return schema.model_validate(data)
    except ValidationError as error:
        lines = [_complaint(_with_names(item, data), schema) for item in error.errors()]
    head = f"recipe {label}: "
    raise RecipeError(head + (lines[0] if len(lines) == 1 else "\n  ".join([f"{len(lines)} problems:", *lines])))


def _with_names(item: Mapping[str, Any], data: Mapping[str, Any]) -> Mapping[str, Any]:
    """Say the stage's name in an error's location, where it has one, instead of its number."""
    location = item["loc"]
    if len(location) > 1 and location[0] == "stages" and isinstance(location[1], int):
        stage = data["stages"][location[1]]
        name = stage.get("name") if isinstance(stage, Mapping) else None
        if isinstance(name, str):
            return {**item, "loc": (location[0], name, *location[2:])}
    return item


def split_override(override: str) -> tuple[str, str]:
    """Split ``key=value``; RecipeError says how it is written."""
    key, equals, value = override.partition("=")
    if not equals or not key.strip(".").strip():
        raise RecipeError(f"'{override}' is not an override; write key=value, such as training.batch_size=8")
    return key.strip(), value


def _read_base(path: Path, base_name: Any) -> dict[str, Any]:
    if not isinstance(base_name, str):
        raise RecipeError(f"{path}: 'extends' must name one recipe, not {kind_of(base_name)}")
    data = read_yaml(find_base(path, base_name))
    if "extends" in data:
        raise RecipeError(
            f"{path} extends '{base_name}', which extends '{data['extends']}'; only one level is allowed: "
            f"extend '{data['extends']}' and repeat the few keys that '{base_name}' changes"
        )
    return data


def _override(data: dict[str, Any], override: str) -> None:
    dotted, text = split_override(override)
    *parents, last = dotted.split(".")
    if parents[:1] == ["stages"] and len(parents) > 1:
        data, parents = _stage_of(data, parents[1], override), parents[2:]
    for depth, key in enumerate(parents, start=1):
        child = data.get(key)
        if child is None:
            child = data[key] = {}
        elif not isinstance(child, dict):
            raise RecipeError(
                f"'{override}': {'.'.join(parents[:depth])} is {kind_of(child)} and has no keys; set it whole"
            )
        data = child
    data[last] = parse_yaml(text, f"'{override}'")


def _stage_of(data: dict[str, Any], name: str, override: str) -> dict[str, Any]:
    """The stage that an override names."""
    from moai.recipe.stages import TWO_STEPS

    stages = data.setdefault("stages", [stage.model_dump(exclude_unset=True) for stage in TWO_STEPS])
    named = {stage.get("name"): stage for stage in stages if isinstance(stage, dict)} if type(stages) is list else {}
    if name not in named:
        raise RecipeError(f"'{override}': there is no stage '{name}'{nearest(name, named)}")
    return named[name]


def _complaint(item: Mapping[str, Any], schema: type[BaseModel]) -> str:
    location = item["loc"]
    key = _key(schema, location) or "recipe"
    if item["type"] == "extra_forbidden":
        return f"{key}: unknown key{nearest(str(location[-1]), _fields_at(schema, location[:-1]))}"
    if item["type"] == "missing":
        return f"{key}: missing; add it{_meaning(schema, location, ': ')}"
    if item["type"] == "literal_error" and isinstance(item["input"], str):
        choices = _quoted(item["ctx"]["expected"])
        return f"{key}: '{item['input']}' is not one of {', '.join(choices)}{_only_near(item['input'], choices)}"
    if item["type"] == "union_tag_not_found":
        return f"{key}.{_quoted(item['ctx']['discriminator'])[0]}: missing; add it"
    if item["type"] == "union_tag_invalid":
        tag, choices = item["ctx"]["tag"], _quoted(item["ctx"]["expected_tags"])
        where = f"{key}.{_quoted(item['ctx']['discriminator'])[0]}"
        return f"{where}: '{tag}' is not one of {', '.join(choices)}{_only_near(tag, choices)}"
    message = item["msg"].removeprefix("Value error, ")
    given = "" if isinstance(item["input"], (dict, BaseModel)) else f" (given: {item['input']!r})"
    return f"{key}: {_lowered(message)}{given}{_meaning(schema, location, '; it means: ')}"


def _meaning(schema: Any, location: Sequence[Any], before: str) -> str:
    """The description of the key at a location, where the schema has one."""
    models = [kind for kind in _walk(schema, location[:-1])[0] if hasattr(kind, "model_fields")]
    found = [model.model_fields[location[-1]] for model in models if location and location[-1] in model.model_fields]
    texts = [field.description for field in found if field.description]
    return f"{before}{_lowered(texts[0]).removesuffix('.')}" if texts else ""


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _quoted(text: str) -> list[str]:
    return re.findall(r"'([^']*)'", text)


def _only_near(name: str, choices: Sequence[str]) -> str:
    hint = nearest(name, choices)
    return hint if "did you mean" in hint else ""


def _fields_at(schema: Any, location: Sequence[Any]) -> list[str]:
    """Names the schema knows at a location."""
    return sorted({name for kind in _walk(schema, location)[0] for name in _names(kind)})


def _key(schema: Any, location: Sequence[Any]) -> str:
    """The key that a recipe writes for a location."""
    return ".".join([*_walk(schema, location[:-1])[1], *map(str, location[-1:])])


def _walk(schema: Any, location: Sequence[Any]) -> tuple[list[Any], list[str]]:
    """What stands at a location, and its keys; a union's location holds the member's tag, which is no key."""
    kinds, keys = [schema], []
    for part in location:
        stepped = [kind for model in kinds for kind in _step(model, part)]
        keys += [str(part)] if stepped else []
        kinds = stepped or kinds
    return kinds, keys


def _step(kind: Any, part: Any) -> Iterator[Any]:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        for name, field in kind.model_fields.items():
            if part in (name, field.alias):
                yield from _members(field.annotation)
    elif typing.get_origin(kind) is not None:
        yield from (model for argument in typing.get_args(kind) for model in _members(argument))


def _members(annotation: Any) -> Iterator[Any]:
    if typing.get_origin(annotation) in (typing.Union, types.UnionType, typing.Annotated):
        for argument in typing.get_args(annotation):
            yield from _members(argument)
    else:
        yield annotation


def _names(kind: Any) -> list[str]:
    if not (isinstance(kind, type) and issubclass(kind, BaseModel)):
        return []
    return [field.alias or name for name, field in kind.model_fields.items()]
