"""docs/experts.md is true: its Python runs, its commands are understood, and what it lists is what there is."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path

import click
import pytest

import moai.testing
from moai.cli.main import cli
from moai.expert import Expert

PAGE = (Path(__file__).parents[1] / "docs" / "experts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
COMMANDS = [line for language, text in BLOCKS if language == "sh" for line in text.splitlines()]


@pytest.mark.slow
def test_the_python_runs(tmp_path, monkeypatch):
    """Together as one module, since the contract imports the expert's own in a fresh interpreter."""
    source = "\n".join(text for language, text in BLOCKS if language == "python")
    (tmp_path / "docs_experts_page.py").write_text(source)
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__("docs_experts_page")
    try:
        module.test_the_contract()
        module.test_the_contract_with_the_fixture(moai.check_expert)
        seen = moai.Perception(notes={"darkness": ("9% of the image is dark.",)})
        assert module.in_english(seen) == "Light: 9% of the image is dark."
        assert len(module.Weighty().weights_id()) == 64
    finally:
        sys.modules.pop("docs_experts_page")


@pytest.mark.parametrize("line", COMMANDS)
def test_the_commands_are_understood(line):
    program, name, *arguments = shlex.split(line)
    assert program == "moai"
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    if isinstance(command, click.Group):
        command, arguments = command.commands[arguments[0]], arguments[1:]
    command.make_context(name, arguments)  # raises on an unknown option, or a missing argument


def test_the_lists_are_complete():
    rows = re.findall(r"^\| (`.*?) \|", PAGE, re.MULTILINE)
    named = {name.partition("(")[0] for row in rows for name in re.findall(r"`([^`]+)`", row)}
    own = {name for name in vars(Expert) if not name.startswith("_")} | set(Expert.__annotations__)
    assert named == own - {"missing"}
    checks = {name for name in moai.testing.__all__ if name.startswith("check_")}
    assert checks <= set(re.findall(r"check_\w+", PAGE))
