"""`moai new-dataset`: what it writes passes its own test as written, and what it refuses."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import pytest
from click.testing import CliRunner

from moai.cli.main import cli
from moai.scaffold import render_dataset


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    """An empty working directory."""
    monkeypatch.chdir(tmp_path)


def run(*words):
    return CliRunner().invoke(cli, ["new-dataset", *words])


def test_the_package_passes_its_own_tests_as_written(tmp_path):
    outcome = run("shop-receipts")
    assert outcome.exit_code == 0 and "pip install -e moai-shop-receipts" in outcome.stdout, outcome.output
    folder = tmp_path / "moai-shop-receipts"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    tests = {"tests/test_shop_receipts.py", "tests/sample.jsonl"}
    assert files == {"pyproject.toml", "README.md", "moai_shop_receipts.py", *tests}
    project = tomllib.loads((folder / "pyproject.toml").read_text())["project"]
    assert project["entry-points"]["moai"] == {"shop-receipts": "moai_shop_receipts"}
    assert project["description"] == "The data format shop-receipts for moai"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)  # against a hang
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


def test_nothing_is_left_unfilled_and_a_word_of_python_is_a_name():
    for name in ("x", "class"):
        for path, text in render_dataset(name).items():
            assert "$" not in text, path
            if path.endswith(".py"):
                assert ast.get_docstring(ast.parse(text)) and max(map(len, text.splitlines())) <= 120, path


@pytest.mark.parametrize(
    ("name", "said"),
    [("Receipts", "cannot be a data format's name: .*write receipts"), ("jsonl", "'jsonl' is registered already")],
)
def test_names_that_cannot_be_used_are_refused(tmp_path, name, said):
    import re

    outcome = run(name)
    assert outcome.exit_code == 1 and re.search(said, outcome.stderr) and not list(tmp_path.iterdir())
