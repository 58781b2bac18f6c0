"""The README is true: its tree, its commands, its Python, its figures of defaults, and what it says is downloaded."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import json
import re
import shlex
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import NamedTuple

import click
import numpy as np
import pytest
import tiny
from PIL import Image

import moai
from moai import errors
from moai.assets.pins import PINS
from moai.cli.main import cli
from moai.data.demo import demo_picture
from moai.plugins import load_registry, registry
from moai.recipe.loading import load_recipe
from moai.recipe.schema import Recipe
from moai.training.trainer import train

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = "# prints: "
MODULE = "moai_qr"


class Block(NamedTuple):
    """A fenced block: its language, its text, and the README's line on which the text begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name in the first line's comment (``# moai_qr.py``), when the block is a whole file."""
        found = re.match(r"# (\S+\.\w+)\n", self.text)
        return found[1] if found else None


BLOCKS = [Block(m[1], m[2], README.count("\n", 0, m.start(2)) + 1) for m in FENCE.finditer(README)]
PROSE = FENCE.sub("", README)
SCRIPTS = [block for block in BLOCKS if block.language == "python" and block.file is None]


def file_block(name: str) -> str:
    """The text of the block that is the file ``name``."""
    return next(block.text for block in BLOCKS if block.file == name)


def section(title: str) -> str:
    """The text under ``## title``."""
    return re.split(r"^## ", README.partition(f"\n## {title}\n")[2], maxsplit=1, flags=re.MULTILINE)[0]


def rows(title: str) -> list[list[str]]:
    """Cells of the table rows under ``## title``, without the headings."""
    lines = [line for line in section(title).splitlines() if line.startswith("| ") and not line.startswith("| ---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def first_code(cell: str) -> str | None:
    """What stands first in backticks."""
    found = re.search(r"`([^`]+)`", cell)
    return found[1] if found else None


def in_repository() -> set[str]:
    """Paths that git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return {name for name in listed if (ROOT / name).exists()}


# --- text ------------------------------------------------------------------------------------------------------------


def test_the_readme_is_short_and_has_what_the_tests_read():
    assert len(README.splitlines()) <= 350
    assert len(SCRIPTS) >= 3 and {"sh", "toml", "text", "python"} == {block.language for block in BLOCKS}


def test_no_figure_is_missing():
    assert re.findall(r"\{\{\w+\}\}", README) == []


def test_links_inside_the_page_lead_somewhere():
    titles = re.findall(r"^#+ (.+)$", PROSE, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    links = re.findall(r"\]\(([^)]+)\)", PROSE)
    assert links
    for link in links:
        if link.startswith("#"):
            assert link[1:] in anchors
        elif "://" not in link:
            assert (ROOT / link).exists(), link


def test_every_error_it_names_exists():
    named = set(re.findall(r"\b[A-Z]\w+Error\b", PROSE))
    assert named and named <= set(vars(errors))


# --- tree ------------------------------------------------------------------------------------------------------------


def tree() -> list[str]:
    """Paths of the tree's lines, folders with a slash at the end; a line that begins with spaces only continues one."""
    paths, parents = [], []
    block = FENCE.search(section("The repository"))
    for line in filter(str.strip, block[2].splitlines()):
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
    about = section("The repository").partition("\nmoai/")[2].partition("  assets/")[0]
    files = {path.stem for path in (ROOT / "moai").glob("*.py")} - {"__init__"}
    assert files <= set(re.findall(r"\w+", about))


def test_the_diagram_names_files_that_exist():
    diagram = FENCE.search(section("The method"))[2]
    named = set(re.findall(r"\w+\.py", diagram))
    assert len(named) > 5 and named <= {path.name for path in (ROOT / "moai").rglob("*.py")}


# --- commands --------------------------------------------------------------------------------------------------------

LINES = [line for block in BLOCKS if block.language == "sh" for line in block.text.splitlines() if line]
COMMANDS = [line for line in LINES if line.startswith("moai ")]
INLINE = sorted(set(re.findall(r"`(moai [^`]+)`", PROSE)))


def parse(line: str) -> dict:
    """The values that click reads from a command line; fails on an unknown command or option, or a missing one."""
    _, name, *arguments = shlex.split(line)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"`moai {name}` is no command"
    try:
        return command.make_context(name, list(arguments)).params
    except click.UsageError as error:
        pytest.fail(f"`{line}`: {error.format_message()}")


@pytest.mark.parametrize("line", COMMANDS + [line for line in INLINE if line.count(" ") > 1])
def test_commands_are_understood(line, monkeypatch):
    given = parse(line)
    monkeypatch.chdir(ROOT)
    if "recipe" in given or "recipe_name" in given:
        load_recipe(given.get("recipe") or given["recipe_name"], given["overrides"])
    for name in given["experts"].split(",") if given.get("experts") and "images" in given else []:
        assert name in {*registry().experts, "qr"}, f"`{line}` names no expert of ours"
    for condition in (given.get("conditions") or "on").split(","):
        assert condition.partition(":")[0] in ("on", "off", "shuffled", "oracle", "leave-one-out", "without", "noisy")


def test_commands_named_in_passing_exist():
    names = {line.split()[1] for line in INLINE}
    assert names and all(cli.get_command(click.Context(cli), name) is not None for name in names)


def test_there_are_no_other_commands_in_the_shell_blocks():
    rules = re.findall(r"^([a-z][a-z -]*):", (ROOT / "Makefile").read_text(), re.MULTILINE)
    targets = {target for rule in rules for target in rule.split()}
    made = [line for line in LINES if line.startswith("make ")]
    assert len(COMMANDS) > 8 and made and len(COMMANDS) + len(made) == len(LINES)
    assert {line.split()[1] for line in made} <= targets


# --- what it says of defaults and downloads --------------------------------------------------------------------------


def value_of(recipe: Recipe, key: str) -> str:
    """A recipe's value as YAML writes it."""
    return json.dumps(functools.reduce(getattr, key.split("."), recipe)).strip('"')


def test_the_table_of_differences_shows_the_defaults_and_the_published_arithmetic():
    minimal = {"version": 1, "name": "x", "host": {"reference": "a/b"}, "vision": {"reference": "a/b"}}
    ours, published_code = Recipe(**minimal), Recipe(**minimal, arithmetic="published")
    checked = 0
    for what, _, published, here, _ in rows("What differs from the paper and from the published code")[1:]:
        key = first_code(what)
        if key is None:
            continue
        assert first_code(here) == value_of(ours, key), key
        if published != "-":
            assert first_code(published) == value_of(published_code, key), key
        checked += 1
    assert checked >= 6


def test_every_pinned_wheel_is_listed_with_version_and_licence():
    listed = {row[0]: row[3] for row in rows("What is downloaded")[1:]}
    assert set(listed) == {f"`{name}` {pin.version}" for name, pin in PINS.items()}
    for name, pin in PINS.items():
        assert listed[f"`{name}` {pin.version}"].split()[0] == pin.licence.split()[0]


# --- Python ----------------------------------------------------------------------------------------------------------


class Reader:
    """Types the README's Python from the top, in one namespace, in a folder that holds the runs it speaks of."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.done = folder, {"__name__": "readme"}, 0

    def read(self, number: int) -> str:
        """Run the blocks up to ``number`` that were not run yet, and return what the last one printed."""
        printed = io.StringIO()
        while self.done <= number:
            block, printed = SCRIPTS[self.done], io.StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(ROOT / "README.md"), "exec")
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(code, self.names)
            self.done += 1
        return printed.getvalue()


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a tiny trained run as ``runs/quickstart``, and the plugin of the README on the import path."""
    folder = tmp_path_factory.mktemp("readme")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_CACHE", str(folder / "cache"))
        (folder / f"{MODULE}.py").write_text(file_block(f"{MODULE}.py"))
        patch.syspath_prepend(folder)
        tiny.register()
        run = train(tiny.recipe(), folder / "runs" / "quickstart")
        demo_picture().save(run / "demo.png")
        yield folder
    sys.modules.pop(MODULE, None)


@pytest.fixture(scope="module")
def reader(folder):
    return Reader(folder)


@pytest.mark.parametrize("number", range(len(SCRIPTS)), ids=[f"line{block.line}" for block in SCRIPTS])
def test_the_python_runs_and_prints_what_it_says(reader, number):
    printed = reader.read(number).splitlines()
    expected = [line.removeprefix(PRINTS) for line in SCRIPTS[number].text.splitlines() if line.startswith(PRINTS)]
    assert printed[len(printed) - len(expected) :] == expected


def test_the_outputs_that_are_checked_are_there():
    assert sum(block.text.count(PRINTS) for block in SCRIPTS) >= 1


def test_a_left_padded_batch_was_generated_and_saved(reader, folder):
    reader.read(len(SCRIPTS) - 1)
    inputs, output = reader.names["inputs"], reader.names["output"]
    assert inputs["input_ids"].shape[0] == 2 and output.shape[1] > inputs["input_ids"].shape[1]
    assert 0 in inputs["attention_mask"][:, 0] and bool(inputs["attention_mask"][:, -1].all())
    saved = {path.name for path in (folder / "copy").iterdir()}
    assert {"moai.safetensors", "config.json", "manifest.json"} <= saved
    assert isinstance(moai.load(folder / "copy").ask(reader.names["picture"], "What color is it?").text, str)


def test_the_plugin_registers_and_reads_a_code(folder):
    import cv2

    known = load_registry(plugins=[importlib.import_module(MODULE)])
    assert [problem for problem in known.problems if problem.plugin == MODULE] == []
    pixels = np.full((240, 320), 255, np.uint8)
    code = np.kron(cv2.QRCodeEncoder.create().encode("table 7"), np.ones((5, 5), np.uint8))
    pixels[20 : 20 + len(code), 30 : 30 + len(code)] = code
    [seen] = moai.Perceiver(["qr"], registry=known).perceive([Image.fromarray(pixels).convert("RGB")])
    assert seen.failures == ()
    [line] = seen.texts
    assert line.text == "table 7"
    assert np.allclose(line.polygon[0], (40 / 320, 30 / 240), atol=0.02)
    assert moai.verbalize(seen, registry=known) == "The image includes text descriptions: table 7."


def test_the_plugins_pyproject_names_its_module_and_builds_like_ours():
    given = tomllib.loads(file_block("pyproject.toml"))
    ours = tomllib.loads((ROOT / "plugins" / "moai-shapes" / "pyproject.toml").read_text())
    assert given["project"]["entry-points"] == {"moai": {"qr": MODULE}}
    assert given["tool"]["setuptools"]["py-modules"] == [MODULE]
    assert given["build-system"] == ours["build-system"]
    assert set(given["project"]) <= set(ours["project"]) and "moai-vlm" in given["project"]["dependencies"]
