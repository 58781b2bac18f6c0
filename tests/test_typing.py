"""What a type checker says of moai: nothing of a program that uses it well, and each mistake of one that does not."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import moai

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow  # runs mypy
CONSUMER = ROOT / "tests" / "typed_consumer.py"
FILES = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["mypy"]["files"]


@pytest.fixture(scope="module")
def mypy(tmp_path_factory):
    """``mypy(*arguments)`` runs it in the clone, offline, and returns its exit code and what it said."""
    cache = tmp_path_factory.mktemp("mypy")

    def run(*arguments: object) -> tuple[int, str]:
        command = [sys.executable, "-m", "mypy", "--cache-dir", str(cache), *map(str, arguments)]
        environment = {**os.environ, "MYPYPATH": str(ROOT)}
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
        return done.returncode, done.stdout + done.stderr

    return run


def test_each_public_name_lives_in_a_module_that_is_checked():
    homes = {importlib.util.find_spec(module).origin for module in moai._HOMES.values()}
    assert {Path(home).relative_to(ROOT).as_posix() for home in homes} <= set(FILES)
    assert set(moai._HOMES) | {"__version__"} == set(moai.__all__)


def test_the_signatures_are_whole_and_right(mypy):
    code, said = mypy()
    assert code == 0, said
    assert int(re.search(r"no issues found in (\d+) source files", said)[1]) == len(FILES) > 15


def test_a_strict_program_with_every_public_name_is_fine(mypy):
    text = CONSUMER.read_text(encoding="utf-8")
    used = set(re.findall(r"moai\.(\w+)", text)) | set(
        re.findall(r"(\w+)", re.search(r"from moai import (.*)", text)[1])
    )
    assert set(moai.__all__) <= used, "use the new name in typed_consumer.py"
    code, said = mypy("--strict", CONSUMER)
    assert code == 0, said


def test_its_mistakes_are_found(mypy, tmp_path):
    text = CONSUMER.read_text(encoding="utf-8")
    marks = re.compile(r"  # type: ignore\[([a-z-]+)\]$", re.MULTILINE)
    (tmp_path / "bare.py").write_text(marks.sub("", text))
    code, said = mypy("--strict", tmp_path / "bare.py")
    expected = [(number, mark[1]) for number, line in enumerate(text.splitlines(), 1) if (mark := marks.search(line))]
    found = [(int(m[1]), m[2]) for m in re.finditer(r"bare\.py:(\d+): error: .*\[([a-z-]+)\]$", said, re.MULTILINE)]
    assert code == 1 and sorted(set(found)) == expected and len(expected) > 12, said


def test_a_signature_without_types_would_be_found(mypy, tmp_path):
    (tmp_path / "loose.py").write_text("def load(folder) -> dict:\n    return {}\n")
    code, said = mypy(tmp_path / "loose.py")
    assert code == 1 and "[no-untyped-def]" in said and "[type-arg]" in said
