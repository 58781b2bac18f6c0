"""Our own plugins import only the names that docs/plugins.md lists for everybody's plugins."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

import moai
from moai import plugin_api

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
SOURCES = sorted(
    path for path in (ROOT / "plugins").rglob("*.py") if not {"tests", "build"} & set(path.relative_to(ROOT).parts)
)
API = "moai.plugin_api"


def listed() -> tuple[set[str], set[str]]:
    """Return the modules that the page's table names, and the names of ``moai.plugin_api`` in it."""
    section = PAGE.partition("\n## Names that plugins may import\n")[2].partition("\n#")[0]
    rows = [line.strip("|").split("|", 1) for line in section.splitlines() if line.startswith("| `")]
    modules = {module for first, _ in rows for module in re.findall(r"`([\w.]+)`", first)}
    return modules, {name for first, rest in rows if API in first for name in re.findall(r"`(\w+)`", rest)}


MODULES, NAMES = listed()


def used(tree: ast.Module) -> Iterator[tuple[str, str]]:
    """Yield module and name of all that a file takes from moai, wherever in it, also for type checkers."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            # `import moai.expert` reads like `import moai`, and needs the module all the same.
            yield from ((alias.name, "") for alias in node.names if alias.name.split(".")[0] == "moai")
        elif isinstance(node, ast.ImportFrom) and (node.module or "").split(".")[0] == "moai":
            yield from ((node.module, alias.name) for alias in node.names)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "moai":
            yield ("moai", node.attr)


def refused(tree: ast.Module) -> list[str]:
    """Return what a file takes from moai and the page does not list."""
    allowed = {"moai": {*moai.__all__, ""}, API: {*NAMES, ""}}
    return [
        f"{module}.{name}".rstrip(".")
        for module, name in used(tree)
        if module not in MODULES or name not in allowed.get(module, {name})
    ]


def test_the_page_lists_every_module_and_name():
    assert MODULES == {"moai", "moai.types", "moai.errors", "moai.testing", API}
    assert NAMES == set(plugin_api.__all__) == set(plugin_api._HOMES) and sorted(NAMES) == plugin_api.__all__


def test_every_name_is_used_by_a_plugin_or_a_format_of_ours():
    taken = {name for path in SOURCES for module, name in used(ast.parse(path.read_text())) if module == API}
    formats = [ast.parse(path.read_text()) for path in (ROOT / "moai" / "data" / "formats").glob("*.py")]
    own = {name for tree in formats for module, name in used(tree) if plugin_api._HOMES.get(name) == module}
    assert taken | own == NAMES


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT / "plugins").as_posix())
def test_a_plugin_imports_what_is_listed(path):
    assert refused(ast.parse(path.read_text(encoding="utf-8"))) == []


@pytest.mark.parametrize(
    ("source", "found"),
    [
        ("import moai\nmoai.load", []),
        ("from moai.types import Sample", []),
        ("from moai.plugin_api import resolve", []),
        ("from moai.plugin_api import resolv", ["moai.plugin_api.resolv"]),
        ("import moai.expert", ["moai.expert"]),
        ("import moai\nmoai.answering", ["moai.answering"]),
        ("from moai import answering", ["moai.answering"]),
        ("def f():\n from moai.assets.cache import cache_dir", ["moai.assets.cache.cache_dir"]),
    ],
)
def test_the_rule_can_fail(source, found):
    assert refused(ast.parse(source)) == found
