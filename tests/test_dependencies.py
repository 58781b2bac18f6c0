"""Dependencies: installed, tested and allowed versions compared, and one line, once, where something is newer."""

from __future__ import annotations

import logging
import os
import re
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_distributions import install
from packaging.requirements import Requirement
from packaging.version import Version

import moai
from moai import dependencies
from moai.dependencies import (
    DEVELOPMENT,
    MODEL_LIBRARIES,
    VersionList,
    describe_newer,
    normalize,
    read_dependencies,
    read_tested,
    warn_of_newer_versions,
)
from moai.errors import AssetError, DependencyError

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


@pytest.fixture
def site(tmp_path, monkeypatch):
    """A folder in front of the installed packages."""
    folder = tmp_path / "site"
    folder.mkdir()
    monkeypatch.syspath_prepend(folder)
    return folder


def state(site, requirement, installed, tested=None, name="box"):
    """The only dependency of a distribution that asks for ``requirement``."""
    if installed is not False:
        install(site, name, installed)
    install(site, "moai-vlm", "1.0", requirement)
    [found] = read_dependencies(tested=VersionList(("3.11",), {name: tested} if tested else {}))
    return found


@pytest.mark.parametrize(
    ("installed", "tested", "expected"),
    [
        ("2.14.1", "2.14.1", "fine"),
        ("2.14.1+cpu", "2.14.1", "fine"),
        ("2.14.1.post1", "2.14.1", "fine"),
        ("2.14.0", "2.14.1", "fine"),
        ("2.14", "2.14.0", "fine"),
        ("5.0.0.94", "5.0.0.93", "fine"),
        ("2.14.1", None, "fine"),
        ("2.14.2", "2.14.1", "newer"),
        ("2.15.0.dev20261101+cu130", "2.14.1", "newer"),
        ("2.15.0rc1", "2.14.1", "newer"),
        ("2.20", "2.9.9", "newer"),
        ("3", "2.9.9", "newer"),
        ("1!0.1", "2.14.1", "newer"),
        ("2.5.9", "2.14.1", "old"),
        ("2.6.0.dev1", "2.14.1", "old"),
        ("6.0", "2.14.1", "outside"),
        ("2.13", "2.14.1", "outside"),
        ("banana", "2.14.1", "unreadable"),
        (None, "2.14.1", "unreadable"),
        (False, "2.14.1", "missing"),
    ],
)
def test_the_state_of_a_dependency(site, installed, tested, expected):
    found = state(site, "box>=2.6,!=2.13,<6" if installed != "1!0.1" else "box", installed, tested)
    assert (found.state, found.tested) == (expected, tested)
    assert found.installed == (installed or None)


def test_a_range_is_written_with_its_floor_first(site):
    assert state(site, "box<6,!=2.13,>=2.6", "3.0").allowed == "!=2.13,>=2.6,<6"


def test_a_compatible_release_has_a_floor_as_well(site):
    assert state(site, "box~=2.6", "2.5").state == "old"
    assert dependencies.normalize("Box.._Case") == "box-case"


def test_names_are_normalised(site):
    found = state(site, "Hugging_Face.Hub>=1", "1.2.0", "1.1.0", name="hugging-face-hub")
    assert (found.name, found.installed, found.state) == ("hugging-face-hub", "1.2.0", "newer")


def test_requirements_are_gathered_from_extras_and_markers(site):
    for name in ("a", "b", "c"):
        install(site, name, "1.5")
    install(
        site, "moai-vlm", "1.0",
        "b>=1; extra == 'more'", "b<3; extra == 'other'", "a<2", "a>=1; extra == 'more'",
        "a>=1.2; python_version > '3'", "d; python_version < '3'", "c; extra == 'test'",
        "moai-vlm[more]; extra == 'all'",
        extras=("more", "other", "all", "test"),
    )  # fmt: skip
    found = read_dependencies(tested=VersionList((), {}))
    assert [(one.name, one.allowed, one.extras) for one in found] == [
        ("a", ">=1,>=1.2,<2", ()),
        ("b", ">=1,<3", ("more", "other")),
    ]
    assert {one.needed_by for one in found} == {"moai-vlm"}


def test_what_is_not_installed_has_no_dependencies(site):
    with pytest.raises(DependencyError, match="'no-such-thing' is not installed as a distribution.*; install it"):
        read_dependencies("no-such-thing")


def test_a_requirement_that_cannot_be_read(site):
    install(site, "moai-odd", "1.0", "box >>> 3")
    with pytest.raises(DependencyError, match="'moai-odd' has a requirement that cannot be read"):
        read_dependencies("moai-odd")


def test_without_packaging_a_sentence(site, monkeypatch):
    monkeypatch.setitem(sys.modules, "packaging.specifiers", None)
    with pytest.raises(DependencyError, match="install it: pip install --force-reinstall packaging"):
        read_dependencies()


DAMAGED = (None, "", "[]", '{"python": ["3.11"]}', '{"versions": {}}', '{"versions": {"3.11": 3}}', "\xff")


@pytest.mark.parametrize("text", DAMAGED)
def test_a_damaged_list_of_tested_versions(tmp_path, monkeypatch, text):
    monkeypatch.setattr(dependencies, "files", lambda package: tmp_path)
    if text is not None:
        (tmp_path / "tested.json").write_text(text, encoding="latin-1")
    with pytest.raises(DependencyError, match="list of tested versions cannot be read.*; install moai again"):
        read_tested()


# --- the file that is shipped ----------------------------------------------------------------------------------------


def test_the_tested_versions_are_versions_that_the_project_allows():
    tested = read_tested()
    assert tested.python and all(len(Version(python).release) == 2 for python in tested.python)
    assert all(name == normalize(name) and Version(version) for name, version in tested.versions.items())
    core = [Requirement(text) for text in PROJECT["dependencies"]]
    assert {normalize(requirement.name) for requirement in core} <= set(tested.versions)
    for requirement in core:
        assert requirement.specifier.contains(tested.versions[normalize(requirement.name)]), requirement


def test_the_libraries_that_models_run_on_are_dependencies():
    assert set(MODEL_LIBRARIES) <= {normalize(Requirement(text).name) for text in PROJECT["dependencies"]}
    assert set(DEVELOPMENT) <= set(PROJECT["optional-dependencies"])


# --- the line about newer versions -----------------------------------------------------------------------------------


@pytest.fixture
def drifted(site, monkeypatch):
    """``drifted(transformers="5.25.0")``: what is installed; 5.24.0, 2.14.1 and 8.5.1 were tested. Nothing was said."""
    tested = VersionList(("3.11",), {"transformers": "5.24.0", "torch": "2.14.1", "click": "8.5.1"})
    monkeypatch.setattr(dependencies, "read_tested", lambda: tested)
    monkeypatch.setattr(dependencies, "_logged", False)

    def installed(**versions):
        for name, version in versions.items():
            install(site, name, version)
        install(site, "moai-vlm", "1.0", *versions)

    return installed


BOTH = (
    f"transformers 5.25.0 and torch 2.16.0 are newer than what moai {moai.__version__} was tested with (5.24.0 and "
    "2.14.1); if something fails, `moai doctor` says how to go back"
)


def test_the_sentence_names_what_is_newer(drifted):
    drifted(torch="2.16.0", transformers="5.25.0", click="9.0.0")
    assert describe_newer(read_dependencies()) == BOTH


def test_the_sentence_about_one(drifted):
    drifted(torch="2.14.1", transformers="5.25.0")
    said = describe_newer(read_dependencies())
    assert said.startswith(f"transformers 5.25.0 is newer than what moai {moai.__version__} was tested with (5.24.0);")


def test_what_models_do_not_run_on_is_not_worth_a_line(drifted):
    drifted(torch="2.14.1", transformers="5.24.0", click="9.0.0")
    assert describe_newer(read_dependencies()) == ""


def test_it_is_said_once_by_however_many_threads(drifted, caplog):
    drifted(torch="2.16.0", transformers="5.25.0")
    start = threading.Barrier(8)

    def call():
        start.wait()
        warn_of_newer_versions()

    threads = [threading.Thread(target=call) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [("WARNING", BOTH)]


def test_an_uninstalled_moai_is_no_reason_to_fail(drifted, caplog, monkeypatch):
    def refuse(*_):
        raise DependencyError("not installed; install it")

    monkeypatch.setattr(dependencies, "read_dependencies", refuse)
    caplog.set_level(logging.DEBUG, "moai")
    warn_of_newer_versions()
    [record] = caplog.records
    assert record.levelname == "DEBUG" and "not installed" in record.getMessage()


def test_loading_says_it_before_it_can_fail(drifted, caplog):
    drifted(torch="2.16.0", transformers="5.25.0")
    for _ in range(2):
        with pytest.raises(AssetError):
            moai.load("no-such-run")
    assert [record.getMessage() for record in caplog.records if "newer" in record.getMessage()] == [BOTH]


@pytest.mark.parametrize("main_process", [True, False])
def test_training_says_it_before_the_host_is_built(drifted, caplog, monkeypatch, tmp_path, main_process):
    import moai.training.run as run
    from moai.training.progress import Progress

    def fail(recipe):
        raise ZeroDivisionError("the host cannot be built")

    monkeypatch.setattr(run, "build", fail)
    place = SimpleNamespace(process_index=0 if main_process else 1, world_size=2, dataloader_num_workers=0)
    monkeypatch.setattr(run, "training_arguments", lambda *_, **__: place)
    drifted(torch="2.16.0", transformers="5.25.0")
    recipe = SimpleNamespace(training=None, stages=[None], seed=0, host=SimpleNamespace(reference="a/host"))
    with pytest.raises(ZeroDivisionError):
        run.Run(recipe, tmp_path / "run", Progress())
    own = [record.getMessage() for record in caplog.records if record.name.startswith("moai")]
    assert own == [BOTH] * main_process


def fresh(code, site):
    """What a fresh interpreter prints, with ``site`` in front of what is installed."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join([str(site), str(ROOT)])}
    return subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)


def test_it_is_one_line_on_stderr_and_none_on_stdout(drifted, site):
    drifted(numpy="99.0.0")
    code = "from moai.dependencies import warn_of_newer_versions as warn; warn(); warn(); import sys; print(len({}))"
    done = fresh(code.format("set(sys.modules) & {'torch', 'transformers', 'numpy'}"), site)
    assert done.stdout == "0\n"
    assert done.stderr.count("\n") == 1
    assert re.match(r"(\S+ \S+(, | and ))*numpy 99.0.0 (is|are) newer than what moai ", done.stderr)


@pytest.mark.parametrize("code", ["import moai", "from moai.cli.main import cli; cli(['--help'])"])
def test_it_is_not_said_by_what_loads_no_model(drifted, site, code):
    drifted(numpy="99.0.0")
    assert fresh(code, site).stderr == ""
