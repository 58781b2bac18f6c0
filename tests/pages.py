"""Read pages of Markdown: fenced blocks, sections, tables, commands, and Python that is typed from the top."""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import click
import pytest

from moai.cli.main import cli

ROOT = Path(__file__).parents[1]
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = "# prints: "


class Block(NamedTuple):
    """A fenced block: its language, its text, and the page's line on which the text begins."""

    language: str
    text: str
    line: int

    @property
    def file(self) -> str | None:
        """The name in the first line's comment (``# moai_qr.py``), when the block is a whole file."""
        found = re.match(r"# (\S+\.\w+)\n", self.text)
        return found[1] if found else None


class Page:
    """One page, by its path in the repository."""

    def __init__(self, name: str) -> None:
        self.name, self.path = name, ROOT / name
        self.text = self.path.read_text(encoding="utf-8")

    @cached_property
    def blocks(self) -> list[Block]:
        """Its fenced blocks."""
        return [Block(m[1], m[2], self.text.count("\n", 0, m.start(2)) + 1) for m in FENCE.finditer(self.text)]

    @cached_property
    def prose(self) -> str:
        """Its text without them."""
        return FENCE.sub("", self.text)

    @property
    def scripts(self) -> list[Block]:
        """Its Python that is typed, not saved as a file."""
        return [block for block in self.blocks if block.language == "python" and block.file is None]

    @property
    def lines(self) -> list[str]:
        """Lines of its shell blocks, without comments."""
        found = [line for block in self.blocks if block.language == "sh" for line in block.text.splitlines()]
        return [line for line in found if line.strip() and not line.lstrip().startswith("#")]

    @property
    def anchors(self) -> set[str]:
        """What a link to a place in it may name."""
        titles = re.findall(r"^#+ (.+)$", self.prose, re.MULTILINE)
        return {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}

    def file(self, name: str) -> str:
        """The text of the block that is the file ``name``."""
        return next(block.text for block in self.blocks if block.file == name)

    def section(self, title: str) -> str:
        """The text under ``## title``, or under ``# title`` at the top."""
        rest = self.text.partition(f"\n## {title}\n")[2] or self.text.partition(f"# {title}\n")[2]
        return re.split(r"^## ", rest, maxsplit=1, flags=re.MULTILINE)[0]

    def rows(self, title: str) -> list[list[str]]:
        """Cells of the table rows in a section, without the headings."""
        lines = [n for n in self.section(title).splitlines() if n.startswith("| ") and not n.startswith("| ---")]
        return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


class Reader:
    """Types a page's Python from the top, in one namespace, in a folder that holds the runs it names."""

    def __init__(self, page: Page, folder: Path) -> None:
        self.page, self.folder, self.names, self.done = page, folder, {"__name__": "page"}, 0

    def read(self, number: int) -> str:
        """Run the blocks up to ``number`` that were not run yet, and return what the last one printed."""
        printed = io.StringIO()
        while self.done <= number:
            block, printed = self.page.scripts[self.done], io.StringIO()
            code = compile("\n" * (block.line - 1) + block.text, str(self.page.path), "exec")
            with contextlib.chdir(self.folder), contextlib.redirect_stdout(printed):
                exec(code, self.names)
            self.done += 1
        return printed.getvalue()

    def check(self, number: int) -> None:
        """Run a block, and compare the end of what it prints with what it says that it prints."""
        printed = self.read(number).splitlines()
        lines = self.page.scripts[number].text.splitlines()
        expected = [line.removeprefix(PRINTS) for line in lines if line.startswith(PRINTS)]
        assert printed[len(printed) - len(expected) :] == expected


def parse(line: str) -> dict:
    """The values that click reads from a command line; fails on an unknown command or option, or a missing one."""
    _, name, *arguments = shlex.split(line, comments=True)
    command = cli.get_command(click.Context(cli), name)
    assert command is not None, f"`moai {name}` is no command"
    if isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    try:
        return command.make_context(name, list(arguments)).params
    except click.UsageError as error:
        pytest.fail(f"`{line}`: {error.format_message()}")


PAGES = [Page("README.md"), *(Page(f"docs/{path.name}") for path in sorted((ROOT / "docs").glob("*.md")))]
