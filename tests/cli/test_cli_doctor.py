"""``moai doctor``: its report, what it prints, and that it runs where things are broken."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fake_distributions import install
from fake_installation import SERIES, TORCH, again, plugin

import moai
from moai.doctor import probe

ROOT = Path(__file__).parents[2]


def test_nothing_is_wrong(diagnose, tmp_path):
    report = diagnose()
    assert report["findings"] == []
    assert list(report) == [
        "ok", "moai", "python", "platform", "dependencies", "imports", "cache", "plugins", "assets", "findings",
    ]  # fmt: skip
    assert report["moai"] == {
        "version": moai.__version__, "installed": moai.__version__, "folder": str(Path(moai.__file__).parent),
    }  # fmt: skip
    assert report["python"]["executable"] == sys.executable and report["python"]["tested"] == [SERIES]
    assert set(report["platform"]) == {"system", "machine", "processors"}
    torch, optional = report["dependencies"]
    assert torch == {
        "name": "torch", "needed_by": "moai-vlm", "installed": "2.14.1", "tested": "2.14.1", "allowed": ">=2.6,<3",
        "extras": [], "state": "fine",
    }  # fmt: skip
    assert (optional["name"], optional["extras"], optional["state"]) == ("extra-box", ["more"], "missing")
    assert report["imports"]["torch"] == TORCH and report["imports"]["reason"] is None
    assert [module["ok"] for module in report["imports"]["modules"]] == [True] * len(probe.MODULES)
    assert report["cache"].pop("free") > 0
    assert report["cache"] == {"folder": str(tmp_path / "cache"), "exists": False, "bytes": 0, "writable": True}
    assert not (tmp_path / "cache").exists()
    absent = next(expert for expert in report["plugins"]["experts"] if expert["name"] == "absent")
    assert absent["missing"] == ["no_such_module_of_ours"] and absent["install"] == "pip install absent"
    assert {asset["state"] for asset in report["assets"]} == {"absent"}


# --- what is printed -------------------------------------------------------------------------------------------------


def test_tables_and_sentences(site, run_cli, monkeypatch, known):
    again(site, name="torch", version="2.5.1")
    install(site, "extra-box", "0.5")
    plugin(site, monkeypatch, "moai-vlm", "engine>=3")
    result = run_cli("doctor")
    assert result.exit_code == 1 and "Traceback" not in result.output
    rows = [line.split() for line in result.stdout.splitlines()]
    assert ["torch", "2.5.1", "2.14.1", ">=2.6,<3", "too", "old"] in rows
    assert ["extra-box", "0.5", ">=1", "too", "old,", "extra:", "more"] in rows
    assert ["engine", ">=3", "missing,", "(moai-box)"] in rows
    assert ["cuda:0:", "Great", "GPU,", "80.0", "GB"] in rows and ["cpu:", "2", "threads,", "AVX2"] in rows
    assert ["box", "moai-box", "0.3", "ok"] in rows
    assert ["absent", "open_world", "moai-tests", "9.9", "not", "installed:", "lacks", "no_such_module_of_ours"] in rows
    assert ["wheel", "easy-vqa", "1.0", "absent"] in rows
    assert result.stdout.splitlines()[-1] == (
        'to fix: torch 2.5.1 is older than what moai-vlm allows (>=2.6,<3); pip install "torch>=2.6,<3"'
    )


def test_nothing_to_mend_is_said(site, run_cli):
    result = run_cli("doctor")
    assert result.exit_code == 0 and result.stdout.splitlines()[-1] == "nothing must be fixed"


def test_it_fits_eighty_columns(site, run_cli, monkeypatch):
    monkeypatch.setattr("moai.cli.show.PIPE_WIDTH", 80)
    install(site, "opencv-python-headless", "5.0.0.93")
    install(site, "extra-box-of-scenes", "0.26.0")
    again(
        site, "torch>=2.6,<3", "extra-box>=1.7.2,<1.8; extra == 'scenes'",
        version=moai.__version__, extras=("scenes",),
    )  # fmt: skip
    plugin(site, monkeypatch, "opencv-python-headless>=4.8,<5.1", name="moai-rapidocr")
    tables = run_cli("doctor").stdout.partition("dependency")[2].partition("torch 2")[0]
    assert " opencv-python-headless " in tables and " (moai-rapidocr)" in tables and " extra: scenes" in tables
    assert max(map(len, tables.splitlines())) <= 80


def broken(folder, *modules):
    for name in modules:
        (folder / f"{name}.py").write_text(f"raise ImportError('{name} is broken')")


def fresh(folder, *arguments, **environment):
    """``moai doctor`` in a process of its own, with ``folder`` in front of what is installed."""
    path = os.pathsep.join([str(folder), str(ROOT)])
    command = [sys.executable, "-m", "moai.cli.main", "doctor", *arguments]
    return subprocess.run(
        command, env={**os.environ, "PYTHONPATH": path, **environment}, capture_output=True, check=False
    )


@pytest.mark.parametrize("arguments", [(), ("--json",)])
def test_it_runs_where_everything_is_broken(tmp_path, arguments):
    broken(tmp_path, "torch", "transformers", "pydantic", "pluggy", "numpy", "rich", "filelock", "yaml", "PIL")
    done = fresh(tmp_path, *arguments, MOAI_CACHE=str(tmp_path / "cache"))
    assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
    text = done.stdout.decode()
    assert "torch cannot be imported: ImportError: torch is broken" in text
    assert "ImportError: pluggy is broken" in text or "ImportError: pydantic is broken" in text
    if arguments:
        report = json.loads(text)
        assert report["plugins"] is None and report["cache"]["writable"] and report["dependencies"]
    else:
        assert sum(line.startswith("to fix: ") for line in text.splitlines()) == text.count("to fix: ") >= 2
        assert any(line.split()[:1] == ["transformers"] for line in text.splitlines())  # a table without rich


def test_strange_paths_and_a_terminal_of_ascii(tmp_path):
    broken(tmp_path, "torch")
    place = os.fsencode(tmp_path) + b"/caf\xc3\xa9 \xe9[bold]\x1b[31m"
    for arguments in ((), ("--json",)):
        done = fresh(
            tmp_path, *arguments, MOAI_CACHE=os.fsdecode(place), PYTHONIOENCODING="ascii", HF_TOKEN="hf_SECRET"
        )
        assert done.returncode == 1 and b"Traceback" not in done.stderr, done.stderr
        text = done.stdout.decode("ascii")
        assert "hf_SECRET" not in text and "\x1b" not in text and r"\xe9[bold]" in text.replace("\\\\", "\\")
    assert json.loads(text)["cache"]["folder"].endswith("caf\u00e9 \\xe9[bold]\x1b[31m")


def test_a_plugin_that_prints_does_not_end_up_in_the_json(tmp_path):
    broken(tmp_path, "torch")
    (tmp_path / "moai_loud.py").write_text("print('I am loaded')\nimport no_such_engine")
    install(tmp_path, "moai-loud", "0.1", "moai-vlm", hooks="loud = moai_loud")
    done = fresh(tmp_path, "--json", MOAI_PLUGINS="loud")
    report = json.loads(done.stdout)
    [loud] = [one for one in report["plugins"]["installed"] if one["name"] == "loud"]
    assert loud["problems"] == ["cannot be imported: ModuleNotFoundError: No module named 'no_such_engine'"]
    assert report["plugins"]["restricted_to"] == "loud" and b"I am loaded" in done.stderr
