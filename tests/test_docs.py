"""The pages of docs are true: links, commands, the tree, file names, tables of defaults and downloads, their Python."""

from __future__ import annotations

import functools
import json
import re
import shlex
import subprocess
import tomllib

import pytest
import tiny
from pages import PAGES, ROOT, Page, Reader, parse

import moai
from moai import errors
from moai.assets.pins import PINS, SDISTS
from moai.evaluation.conditions import CONDITIONS
from moai.plugins import registry
from moai.recipe.loading import load_recipe
from moai.recipe.schema import Recipe
from moai.training.trainer import train

BY_NAME = {page.path.name: page for page in PAGES}
ARCHITECTURE, PYTHON = BY_NAME["architecture.md"], BY_NAME["python.md"]


def in_repository() -> set[str]:
    """Paths that git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).exists()}


def first_code(cell: str) -> str | None:
    """What stands first in backticks."""
    found = re.search(r"`([^`]+)`", cell)
    return found[1] if found else None


# --- every page ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(([^)]+)\)", page.prose):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (page.path.parent / name).resolve() if name else page.path
        assert target.exists(), f"{page.name} links to {link}"
        if anchor:
            assert anchor in Page(target.relative_to(ROOT).as_posix()).anchors, f"{page.name} links to {link}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_code_in_its_text_is_closed(page):
    assert page.text.count("```") % 2 == 0 and page.prose.count("`") % 2 == 0


def test_every_error_that_is_named_exists():
    named = {name for page in PAGES for name in re.findall(r"`(\w+Error)\b", page.prose)}
    assert len(named) >= 3 and named <= set(vars(errors))


# --- commands --------------------------------------------------------------------------------------------------------

COMMANDS = sorted({line for page in PAGES for line in page.lines if line.startswith("moai ")})
WRITTEN = {page.name: set(re.findall(r"`(moai [a-z][^`\n]+)`", page.prose)) for page in PAGES}
INLINE = sorted(set().union(*WRITTEN.values()))
NO_FILE = re.compile(r"[A-Z]{2,}|\.\.|\[")  # a placeholder, not a command as it is typed


@pytest.mark.parametrize("line", COMMANDS + [line for line in INLINE if " " in line[5:] and not NO_FILE.search(line)])
def test_commands_are_understood(line, monkeypatch):
    given = parse(line)
    monkeypatch.chdir(ROOT)
    if name := given.get("recipe") or given.get("recipe_name"):
        if not name.startswith("photos"):  # the README's own, which a test of it trains
            load_recipe(name, given["overrides"])
    for name in given["experts"].split(",") if given.get("experts") and "images" in given else []:
        assert name in {*registry().experts, "qr"}, f"`{line}` names no expert of ours"
    for condition in (given.get("conditions") or "on").split(","):
        assert condition.partition(":")[0] in {name.partition(":")[0] for name in CONDITIONS}


def test_commands_named_in_passing_exist():
    names = {shlex.split(line)[1] for line in INLINE if not NO_FILE.match(line.split()[1])}
    from moai.cli.main import all_commands

    assert len(names) > 8 and names <= set(all_commands())


def test_what_is_made_can_be_made():
    rules = re.findall(r"^([\w./][\w./ -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    made = {line.split()[1] for page in PAGES for line in page.lines if line.startswith("make ")}
    assert made and made <= targets


# --- architecture.md -------------------------------------------------------------------------------------------------


def tree() -> list[str]:
    """Paths of the tree's lines, folders with a slash at the end; a line that begins with spaces only continues one."""
    paths, parents = [], []
    for line in filter(str.strip, ARCHITECTURE.blocks[0].text.splitlines()):
        depth = (len(line) - len(line.lstrip())) // 2
        if depth > len(parents):  # the continuation of a comment
            continue
        name = line.split()[0]
        parents = parents[:depth] + ([name] if name.endswith("/") else [])
        paths.append("".join(parents[:depth]) + name)
    return paths


def test_the_tree_lists_what_is_there():
    listed = tree()
    assert len(listed) == len(set(listed)) > 10
    for path in listed:
        assert (ROOT / path).is_dir() if path.endswith("/") else (ROOT / path).is_file(), f"{path} does not exist"


def test_the_tree_lists_the_whole_top_level():
    tops = {name.partition("/")[0] + ("/" if "/" in name else "") for name in in_repository()}
    assert {path for path in tree() if path.count("/") == 0 or path.index("/") == len(path) - 1} == tops


def test_the_tree_lists_every_room_and_names_every_file_beside_them():
    rooms = {path.parent.relative_to(ROOT).as_posix() + "/" for path in (ROOT / "moai").rglob("*.py")}
    assert {path for path in tree() if path.startswith("moai/")} == rooms
    about = ARCHITECTURE.blocks[0].text.partition("\nmoai/")[2].partition("  types/")[0]
    files = {path.stem for path in (ROOT / "moai").glob("*.py")} - {"__init__"}
    assert files <= set(re.findall(r"\w+", about))


def test_every_file_that_it_names_exists():
    named = set(re.findall(r"`([\w./-]+\.(?:py|yaml|md))`", ARCHITECTURE.prose))
    whole = {name for name in named if "/" in name}
    assert len(whole) > 20 and [name for name in whole if not (ROOT / name).is_file()] == []
    known = {path.name for path in (ROOT / "moai").rglob("*.py")} | {path.name for path in (ROOT / "docs").glob("*.md")}
    assert named - whole <= known


def test_its_rows_of_imports_are_those_that_are_tested():
    from test_imports import ROOMS

    written = [line.split() for line in ARCHITECTURE.blocks[1].text.splitlines()]
    assert [{f"moai.{name}" for name in row} for row in written] == [set(row) for row in ROOMS]


def test_it_says_where_to_add_what():
    rows = ARCHITECTURE.rows("Where to add what")[1:]
    first = {what for what, *_ in rows}
    assert {f"a {thing}" for thing in ("data format", "connector", "host", "training objective", "command")} <= first
    hooks = {name for _, where, _ in rows for name in re.findall(r"`(register_\w+)`", where)}
    assert hooks == {name for name in vars(moai.hookspecs) if name.startswith("register_")}


# --- tables ----------------------------------------------------------------------------------------------------------


def value_of(recipe: Recipe, key: str) -> str:
    """A recipe's value as YAML writes it."""
    return json.dumps(functools.reduce(getattr, key.split("."), recipe)).strip('"')


def test_the_table_of_differences_shows_the_defaults_and_the_published_arithmetic():
    vision = {"kind": "encoder", "reference": "a/b"}
    minimal = {"version": 1, "name": "x", "host": {"reference": "a/b"}, "vision": vision}
    ours, published_code = Recipe(**minimal), Recipe(**minimal, arithmetic="published")
    checked = 0
    title = "What differs from the paper and from the published code"
    for what, _, published, here, _ in BY_NAME["differences.md"].rows(title)[1:]:
        key = first_code(what)
        if key is None:
            continue
        assert first_code(here) == value_of(ours, key), key
        if published != "-":
            assert first_code(published) == value_of(published_code, key), key
        checked += 1
    assert checked >= 5


@pytest.mark.parametrize(("title", "pins"), [("Downloads and licences", PINS), ("Source distributions", SDISTS)])
def test_every_pinned_wheel_and_source_distribution_is_listed_with_version_and_licence(title, pins):
    listed = {row[0]: row[3] for row in BY_NAME["downloads.md"].rows(title)[1:]}
    assert set(listed) == {f"`{name}` {pin.version}" for name, pin in pins.items()}
    for name, pin in pins.items():
        assert listed[f"`{name}` {pin.version}"].split()[0] == pin.licence.split()[0]


def test_the_pyproject_of_a_plugin_names_the_readmes_module_and_builds_like_ours():
    given = tomllib.loads(BY_NAME["plugins.md"].file("pyproject.toml"))
    ours = tomllib.loads((ROOT / "plugins" / "moai-shapes" / "pyproject.toml").read_text())
    [(name, module)] = given["project"]["entry-points"]["moai"].items()
    assert f"{module}.py" in {block.file for block in BY_NAME["README.md"].blocks}
    assert given["tool"]["setuptools"]["py-modules"] == [module] and name in BY_NAME["README.md"].text
    assert given["build-system"] == ours["build-system"]
    assert set(given["project"]) <= set(ours["project"]) and "moai-vlm" in given["project"]["dependencies"]


def test_contributing_names_what_is_there():
    page = BY_NAME["CONTRIBUTING.md"]
    named = re.findall(r"`((?:docs|tests|moai|plugins|recipes)/[\w./-]*)`", page.prose)
    assert named and [name for name in named if not (ROOT / name).exists()] == []


# --- python.md -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny trained run as ``runs/easy-vqa``."""
    folder = tmp_path_factory.mktemp("docs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(folder / "cache"))
        tiny.register()
        tiny.draw_nothing(patch)
        train(tiny.recipe(), folder / "runs" / "easy-vqa")
        yield folder


@pytest.fixture(scope="module")
def reader(folder):
    return Reader(PYTHON, folder)


@pytest.mark.parametrize("number", range(len(PYTHON.scripts)), ids=[f"line{block.line}" for block in PYTHON.scripts])
def test_the_python_runs_and_prints_what_it_says(reader, number):
    reader.check(number)


def test_the_outputs_that_are_checked_are_there():
    assert sum(block.text.count("# prints: ") for block in PYTHON.scripts) >= 1


def test_a_left_padded_batch_was_generated_and_saved(reader, folder):
    reader.read(len(PYTHON.scripts) - 1)
    inputs, output = reader.names["inputs"], reader.names["output"]
    assert inputs["input_ids"].shape[0] == 2 and output.shape[1] > inputs["input_ids"].shape[1]
    assert 0 in inputs["attention_mask"][:, 0] and bool(inputs["attention_mask"][:, -1].all())
    saved = {path.name for path in (folder / "copy").iterdir()}
    assert {"moai.safetensors", "config.json", "manifest.json"} <= saved
    assert isinstance(moai.load(folder / "copy").ask(reader.names["picture"], "What color is it?").text, str)
