"""The YAML that recipes are written in: safe, without duplicate keys, with YAML 1.2's core types.

Knows: YAML only. ``1e-4`` is a number; ``on``, ``no``, ``12:30`` and dates are text; aliases may not explode.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from moai.errors import RecipeError

MAX_BYTES = 256 * 1024
MAX_NODES = 20_000  # after aliases are expanded; nine lines of YAML can otherwise stand for billions of values


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Read a YAML mapping: no duplicate keys, no alias bombs, YAML 1.2 numbers and booleans (``on`` is text)."""
    path = Path(path)
    try:
        if path.stat().st_size > MAX_BYTES:
            raise RecipeError(f"{path} is larger than {MAX_BYTES // 1024} KiB; that is not a recipe")
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise RecipeError(f"no file at {path}; check the path") from None
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} cannot be read as UTF-8 text: {error}") from None
    data = parse_yaml(text, str(path))
    if not isinstance(data, dict):
        raise RecipeError(f"{path} must hold 'key: value' lines, not {kind_of(data):.60}")
    return data


def parse_yaml(text: str, where: str) -> Any:
    """Read one YAML document, such as ``8``, ``1e-4``, ``[a, b]`` or nothing (null); ``where`` heads complaints."""
    loader = None
    try:
        loader = _Loader(text)
        root = loader.get_single_node()
        if root is None:
            return None
        _expanded_size(root, {}, where)
        return loader.construct_document(root)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}, column {mark.column + 1}" if mark else ""
        raise RecipeError(f"{where}{line}: {error.problem or error.context}") from None
    except (yaml.YAMLError, ValueError) as error:
        raise RecipeError(f"{where}: not YAML: {error}") from None
    except RecursionError:
        raise RecipeError(f"{where}: nested too deeply for a recipe") from None
    finally:
        if loader is not None:
            loader.dispose()


def kind_of(value: Any) -> str:
    """Name a YAML value in words, for a message."""
    names = {dict: "a mapping", list: "a list", str: f"the text '{value}'", type(None): "nothing"}
    return names.get(type(value), f"the value {value!r}")


class _Loader(yaml.SafeLoader):
    """SafeLoader with YAML 1.2's core types: ``1e-4`` is a number; ``on``, ``no``, ``12:30`` and dates are text."""


_FLOAT = r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?|[-+]?\.(inf|Inf|INF)|\.(nan|NaN|NAN)"
_Loader.yaml_implicit_resolvers = {}
for _tag, _pattern, _first in (
    ("bool", r"true|True|TRUE|false|False|FALSE", "tTfF"),
    ("null", r"~|null|Null|NULL|", ["~", "n", "N", ""]),
    ("int", r"[-+]?[0-9]+|0x[0-9a-fA-F]+", "-+0123456789"),
    ("float", _FLOAT, "-+.0123456789"),
    ("merge", r"<<", "<"),
):
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_tag}", re.compile(f"^(?:{_pattern})$"), list(_first))


def _integer(loader: _Loader, node: yaml.ScalarNode) -> int:
    text = loader.construct_scalar(node)
    return int(text, 16 if text.lower().startswith("0x") else 10)  # 010 is ten, as in YAML 1.2, not eight


_Loader.add_constructor("tag:yaml.org,2002:int", _integer)


def _expanded_size(node: yaml.Node, sizes: dict[int, int | None], where: str) -> int:
    """Count the node's values with aliases expanded; refuse duplicate keys, cycles and bombs on the way."""
    if id(node) in sizes:
        size = sizes[id(node)]
        if size is None:
            raise RecipeError(f"{where}, line {node.start_mark.line + 1}: an alias that contains itself; write it out")
        return size
    sizes[id(node)] = None
    if isinstance(node, yaml.MappingNode):
        _refuse_duplicates(node, where)
        children = [child for pair in node.value for child in pair]
    else:
        children = node.value if isinstance(node, yaml.SequenceNode) else []
    size = 1 + sum(_expanded_size(child, sizes, where) for child in children)
    if size > MAX_NODES:
        raise RecipeError(f"{where}: more than {MAX_NODES} values once its aliases are expanded; write it out")
    sizes[id(node)] = size
    return size


def _refuse_duplicates(node: yaml.MappingNode, where: str) -> None:
    lines: dict[str, int] = {}
    for key, _ in node.value:
        line = key.start_mark.line + 1
        if not isinstance(key, yaml.ScalarNode):
            raise RecipeError(f"{where}, line {line}: a key must be one word, not a list or mapping")
        if key.value in lines:
            raise RecipeError(
                f"{where}, line {line}: '{key.value}' was given on line {lines[key.value]} already; keep one"
            )
        lines[key.value] = line
