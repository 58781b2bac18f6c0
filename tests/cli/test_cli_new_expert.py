"""`moai new-expert`: what it writes passes its own test as written, and what it refuses."""

from __future__ import annotations

import ast
import importlib
import subprocess
import sys
import tomllib

import pytest

import moai
from moai.errors import PluginError
from moai.plugins import load_registry
from moai.scaffold import ROLES, check_name, render

KINDS = (*ROLES, "barcode")


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch, known):
    """An empty working directory, and no plugin but those of a test."""
    monkeypatch.setenv("MOAI_PLUGINS", "")
    monkeypatch.chdir(tmp_path)


def written(run_cli, *arguments) -> str:
    result = run_cli("new-expert", *arguments)
    assert result.exit_code == 0, result.stderr
    return result.stdout


def test_the_package_passes_its_own_tests_as_written(run_cli, tmp_path):
    written(run_cli, "stand-out")
    folder = tmp_path / "moai-stand-out"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(folder)]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)  # against a hang
    assert done.returncode == 0 and "2 passed" in done.stdout, done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("role", KINDS)
def test_every_role_keeps_the_contract_and_is_seen(run_cli, tmp_path, monkeypatch, role, picture):
    name = f"try-{role.replace('_', '-')}"
    written(run_cli, name, "--role", role, "--folder", "plugin")
    module_name = f"moai_{name.replace('-', '_')}"
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    module = importlib.import_module(module_name)
    try:
        known = load_registry(plugins=[module])  # imported above, before the fixture `known` replaced it
        assert known.problems == []
        kind = known.get_expert(name)
        assert (kind.role, kind.__name__) == (role, "".join(word.capitalize() for word in name.split("-")))
        moai.check_expert(kind)
        seen = moai.Perceiver(["try-" + role.replace("_", "-")], registry=known).perceive([picture])[0]
        assert seen.failures == ()
        assert bool(moai.verbalize(seen, registry=known)) is (role != "scene_graph")  # which builds on others
    finally:
        sys.modules.pop(module_name)


def test_the_files_and_the_entry_point(run_cli, tmp_path):
    printed = written(run_cli, "qr-code", "--role", "ocr")
    folder = tmp_path / "moai-qr-code"
    files = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert files == {"pyproject.toml", "README.md", "moai_qr_code.py", "tests/test_qr_code.py"}
    project = tomllib.loads((folder / "pyproject.toml").read_text())
    assert project["project"]["name"] == "moai-qr-code"
    assert project["project"]["entry-points"]["moai"] == {"qr-code": "moai_qr_code"}
    assert "pip install -e moai-qr-code" in printed and "moai experts qr-code" in printed


def test_nothing_is_left_unfilled():
    for role in KINDS:
        for path, text in render("x", role).items():
            assert "$" not in text, path
            if path.endswith(".py"):
                assert ast.get_docstring(ast.parse(text)), path
                assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize(
    "arguments,message",
    [
        (["QR_Code"], "write qr-code"),
        (["moai-qr"], "write qr"),
        (["2qr"], "write qr"),
        (["a--b"], "write a-b"),
        (["../up"], "write up"),
        (["日本"], "cannot be an expert's name"),
        (["x" * 41], f"write {'x' * 40}"),
        (["spots"], "an expert 'spots' is installed already (moai-tests 9.9)"),
        (["qr", "--role", "Big Role"], "must be lower-case letters, digits and single _"),
        (["qr", "--folder", "taken"], "taken exists and is not empty"),
        (["qr", "--folder", "file"], "file exists and is not empty"),
        (["qr", "--folder", "file/inside"], "cannot be written"),
    ],
)
def test_what_it_refuses_is_a_sentence_and_writes_nothing(run_cli, tmp_path, arguments, message):
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.py").write_text("mine")
    (tmp_path / "file").write_text("mine")
    result = run_cli("new-expert", *arguments)
    assert result.exit_code == 1 and message in result.stderr
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["file", "mine.py", "taken"]


def test_a_role_that_is_nearly_one_of_ours_is_pointed_out(run_cli):
    assert "did you mean panoptic?" in run_cli("new-expert", "a", "--role", "panoptics").stderr
    assert "'depth' is a new role" in run_cli("new-expert", "b", "--role", "depth").stderr
    assert run_cli("new-expert", "c", "--role", "ocr").stderr == ""


def test_good_names():
    for name in ("a", "qr2", "a-b-c", "x" * 40):
        check_name(name, "an expert")
    with pytest.raises(PluginError):
        check_name("", "an expert")
