"""``moai doctor`` finds what is wrong: every finding forced once, with its level, its fix and the exit code."""

from __future__ import annotations

import errno
import json
import os
import shutil
import sys
import tempfile
from types import SimpleNamespace

import pytest
from fake_distributions import install
from fake_installation import SERIES, TORCH, WELL, again, plugin

import moai
from moai.doctor import cache as cache_section
from moai.doctor import environment, imports, probe
from moai.plugins import PluginProblem

# --- one finding at a time -------------------------------------------------------------------------------------------


def too_new(site, monkeypatch):
    again(site, name="torch", version="2.15.0")


def too_old(site, monkeypatch):
    again(site, name="torch", version="2.5.1")


def not_allowed(site, monkeypatch):
    again(site, name="torch", version="3.0.0")


def absent(site, monkeypatch):
    again(site, "torch>=2.6,<3", "no-box>=1.2", version=moai.__version__)


def damaged(site, monkeypatch):
    again(site, name="torch", version=None)


def old_extra(site, monkeypatch):
    install(site, "extra-box", "0.5")


def stale(site, monkeypatch):
    again(site, "torch>=2.6,<3", version="0.0.1")


def two_names(site, monkeypatch):
    monkeypatch.setattr(environment, "OTHER", "moai-of-others")
    install(site, "moai-of-others", "4.3")


def never_installed(site, monkeypatch):
    monkeypatch.setattr(environment, "DISTRIBUTION", "no-moai-vlm")


def python_too_old(site, monkeypatch):
    again(site, "torch>=2.6,<3", version=moai.__version__, python=">=99.1")


def python_untested(site, monkeypatch):
    path = site.parent / "tested.json"
    path.write_text(path.read_text().replace(SERIES, "3.1"))


def plugin_below_its_floor(site, monkeypatch):
    plugin(site, monkeypatch, "moai-vlm", "torch>=2.99")


def plugin_without_its_engine(site, monkeypatch):
    plugin(site, monkeypatch, "moai-vlm", "engine>=3")


def plugin_for_a_newer_moai(site, monkeypatch):
    plugin(site, monkeypatch, "moai-vlm>=99")


def plugin_of_the_old_name(site, monkeypatch):
    monkeypatch.setattr(environment, "OTHER", "moai-of-others")
    plugin(site, monkeypatch, "moai-of-others")


def plugin_that_cannot_be_read(site, monkeypatch):
    plugin(site, monkeypatch, "engine >>> 3")


def no_home(site, monkeypatch):
    def fail():
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(cache_section, "cache_dir", fail)


def cache_below_a_file(site, monkeypatch):
    (site / "file").write_bytes(b"")
    monkeypatch.setenv("MOAI_CACHE", str(site / "file" / "deep" / "cache"))


def cache_is_a_file(site, monkeypatch):
    (site / "file").write_bytes(b"")
    monkeypatch.setenv("MOAI_CACHE", str(site / "file"))


def cache_is_a_dangling_link(site, monkeypatch):
    (site / "link").symlink_to(site / "nothing")
    monkeypatch.setenv("MOAI_CACHE", str(site / "link"))


def read_only(site, monkeypatch):
    def refuse(**_):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(tempfile, "TemporaryFile", refuse)


def disk_nearly_full(site, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=10**6))


def damaged_asset(site, monkeypatch):
    from moai.assets.wheels import wheel_folder

    wheel_folder("easy-vqa").mkdir(parents=True)


def no_pip(site, monkeypatch):
    monkeypatch.setattr(cache_section, "PathFinder", SimpleNamespace(find_spec=lambda name: None))


def old_driver(site, monkeypatch):
    lines = [*WELL[:-5], {"torch": {**TORCH, "notes": ["The NVIDIA driver is too old"]}}, *WELL[-4:]]
    monkeypatch.setattr(imports, "_run_probe", lambda: ([json.dumps(line) for line in lines], ""))


def torch_crashes(site, monkeypatch):
    monkeypatch.setattr(imports, "_run_probe", lambda: (['{"started": "torch"}'], "Python was ended by SIGILL"))


def models_do_not_import(site, monkeypatch):
    lines = [
        {"started": "torch"}, {"torch": TORCH}, {"imported": "torch"}, {"started": "transformers"},
        {"imported": "transformers"}, {"started": "moai.answering"}, {"failed": "ImportError: no SubConfigSpec"},
    ]  # fmt: skip
    monkeypatch.setattr(imports, "_run_probe", lambda: ([json.dumps(line) for line in lines], ""))


@pytest.mark.parametrize(
    ("cause", "level", "about", "problem", "fix"),
    [
        (too_new, "warning", "dependencies", "newer than tested: torch 2.15.0", 'pip install "torch==2.14.1"'),
        (too_old, "error", "torch", "2.5.1 is older than what moai-vlm allows", 'pip install "torch>=2.6,<3"'),
        (not_allowed, "error", "torch", "3.0.0 is outside what moai-vlm allows", 'pip install "torch>=2.6,<3"'),
        (absent, "error", "no-box", "no-box is not installed", 'pip install "no-box>=1.2"'),
        (damaged, "error", "torch", "metadata of torch cannot be read", "--force-reinstall"),
        (old_extra, "warning", "extra-box", "0.5 is older than", 'pip install "extra-box>=1"'),
        (stale, "warning", "moai-vlm", "0.0.1 is installed, but the code is", "install it again"),
        (two_names, "warning", "moai-of-others", "installed as well", "pip uninstall moai-of-others"),
        (never_installed, "error", "no-moai-vlm", "is not installed as a distribution", "pip install -e ."),
        (python_too_old, "error", "python", "does not fit >=99.1", "-m venv .venv"),
        (python_untested, "warning", "python", "is not among those tested (3.1)", "use Python 3.1"),
        (plugin_below_its_floor, "error", "torch", "older than what moai-box allows", 'pip install "torch>=2.99"'),
        (plugin_without_its_engine, "warning", "engine", "which moai-box needs", 'pip install "engine>=3"'),
        (plugin_for_a_newer_moai, "error", "moai-vlm", "older than what moai-box allows", 'pip install "moai-vlm>=99"'),
        (plugin_of_the_old_name, "warning", "moai-box", "another project", "write moai-vlm into the dependencies"),
        (plugin_that_cannot_be_read, "error", "moai-box", "requirement that cannot be read", "update it"),
        (no_home, "error", "cache", "has no place: Could not determine home", "set MOAI_CACHE"),
        (cache_below_a_file, "error", "cache", "is no folder", "set MOAI_CACHE"),
        (cache_is_a_file, "error", "cache", "is no folder", "set MOAI_CACHE"),
        (cache_is_a_dangling_link, "error", "cache", "is no folder", "set MOAI_CACHE"),
        (read_only, "error", "cache", os.strerror(errno.EROFS), "set MOAI_CACHE"),
        (disk_nearly_full, "warning", "cache", "little space is left", "free some space"),
        (damaged_asset, "error", "easy-vqa", "is damaged", "remove it"),
        (no_pip, "warning", "pip", "pip is not in this environment", "ensurepip"),
        (old_driver, "warning", "torch", "driver is too old", "update the driver"),
        (
            torch_crashes,
            "error",
            "torch",
            "torch cannot be imported: Python was ended by",
            'reinstall "torch==2.14.1"',
        ),
        (models_do_not_import, "error", "moai.answering", "no SubConfigSpec", '"torch==2.14.1" transformers'),
    ],
)
def test_a_finding(diagnose, site, monkeypatch, cause, level, about, problem, fix):
    cause(site, monkeypatch)
    [finding] = diagnose()["findings"]
    assert (finding["level"], finding["about"]) == (level, about)
    assert problem in finding["problem"] and fix in finding["fix"]


def test_torch_that_is_missing_is_reported_once(diagnose, site, monkeypatch):
    again(site, "no-torch>=2.6", version=moai.__version__)
    monkeypatch.setattr(probe, "MODULES", ("no-torch",))
    lines = ['{"started": "no-torch"}', '{"failed": "ModuleNotFoundError: No module named \'no-torch\'"}']
    monkeypatch.setattr(imports, "_run_probe", lambda: (lines, ""))
    report = diagnose()
    assert [finding["about"] for finding in report["findings"]] == ["no-torch"]
    assert report["imports"]["torch"] is None


def test_without_the_list_of_tested_versions_the_rest_is_examined(diagnose, site):
    (site.parent / "tested.json").unlink()
    report = diagnose()
    assert report["python"] is None and report["dependencies"] is None and report["cache"]["writable"]
    assert {finding["about"] for finding in report["findings"]} == {"python", "dependencies"}
    assert all("install moai again" in finding["problem"] for finding in report["findings"])


def test_what_cannot_be_examined_is_a_finding(diagnose, monkeypatch):
    monkeypatch.setitem(sys.modules, "moai.plugins", None)  # as when pluggy or pydantic is broken
    report = diagnose()
    [finding] = report["findings"]
    assert report["plugins"] is None and report["assets"]
    assert (
        finding["level"] == "error" and finding["about"] == "plugins" and "could not be examined" in finding["problem"]
    )


def test_broken_plugins_are_named_with_their_distribution(diagnose, site, monkeypatch, known):
    plugin(site, monkeypatch, "moai-vlm")
    known.problems += [
        PluginProblem("box", "cannot be imported: no"),
        PluginProblem("bax", "not installed"),
    ]
    report = diagnose()
    box, bax = report["plugins"]["installed"][1], report["plugins"]["installed"][0]
    assert box == {
        "name": "box", "distribution": "moai-box", "version": "0.3", "problems": ["cannot be imported: no"],
    }  # fmt: skip
    assert bax["distribution"] is None and bax["problems"] == ["not installed"]
    fixes = {finding["about"]: finding["fix"] for finding in report["findings"]}
    assert fixes["box"] == "update it: pip install --upgrade moai-box; or remove it: pip uninstall moai-box"
    assert "MOAI_PLUGINS" in fixes["bax"]


def test_an_expert_that_cannot_say_what_it_lacks(diagnose, known, monkeypatch):
    def missing():
        raise ValueError("cv2.__spec__ is None")

    monkeypatch.setattr(known.experts["spots"], "missing", missing)
    [finding] = diagnose()["findings"]
    assert finding["level"] == "warning" and "'spots' cannot say what it lacks: ValueError" in finding["problem"]
