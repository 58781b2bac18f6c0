"""`make` installs: from nothing, from half of it, and with one sentence where it cannot.

A project of one module, with a backend of its own and a wheel beside it, stands for this one: no index is asked.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow  # makes environments
SCRIPT = ROOT / ".ci" / "environment.py"
sys.path.insert(0, str(SCRIPT.parent))  # what makes environments is no part of the package
try:
    import environment
    import versions
finally:
    sys.path.pop(0)

PYPROJECT = """
[build-system]
requires = []
build-backend = "backend"
backend-path = ["."]
[project]
name = "small-project"
version = "1"
dependencies = ["dep>=1"]
[project.optional-dependencies]
test = []
"""
BACKEND = '''
"""Builds an editable wheel: a path to this folder."""
import os, zipfile

def build_editable(wheel_directory, config_settings=None, metadata_directory=None):
    name = "small_project-1-py3-none-any.whl"
    with zipfile.ZipFile(os.path.join(wheel_directory, name), "w") as wheel:
        wheel.writestr("small_project.pth", os.getcwd())
        head = "Metadata-Version: 2.1\\nName: small-project\\nVersion: 1\\nProvides-Extra: test\\n"
        tags = "Wheel-Version: 1.0\\nRoot-Is-Purelib: true\\nTag: py3-none-any\\n"
        files = {"METADATA": head, "WHEEL": tags, "RECORD": "small_project.pth,,\\n"}
        for part in files:
            files["RECORD"] += f"small_project-1.dist-info/{part},,\\n"
            wheel.writestr(f"small_project-1.dist-info/{part}", files[part])
    return name
'''


def digest(content: str) -> str:
    return base64.urlsafe_b64encode(hashlib.sha256(content.encode()).digest()).rstrip(b"=").decode()


def write_wheel(folder: Path, version: str = "1.0", tag: str = "py3-none-any", text: str = "VALUE = 1\n") -> str:
    """Write a wheel of the package `dep` and return its SHA-256."""
    info = f"dep-{version}.dist-info"
    files = {
        "dep.py": text,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: dep\nVersion: {version}\n",
        f"{info}/WHEEL": f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n",
    }
    record = "".join(f"{name},sha256={digest(content)},{len(content)}\n" for name, content in files.items())
    path = folder / f"dep-{version}-{tag}.whl"
    with zipfile.ZipFile(path, "w") as wheel:
        for name, content in {**files, f"{info}/RECORD": f"{record}{info}/RECORD,,\n"}.items():
            wheel.writestr(name, content)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture(scope="module")
def bare(tmp_path_factory):
    """An environment with pip and nothing else; a copy of it works where it lies."""
    folder = tmp_path_factory.mktemp("bare") / ".venv"
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    return folder


@pytest.fixture
def made(project, bare):
    """The project with a bare environment that `make` would have made."""
    shutil.copytree(bare, project.ROOT / ".venv", symlinks=True)
    return project


@pytest.fixture
def project(tmp_path, monkeypatch):
    """The script's module, at work on a small project whose index is a folder."""
    root, wheels = tmp_path / "project", tmp_path / "wheels"
    (root / "moai").mkdir(parents=True)
    wheels.mkdir()
    (root / "pyproject.toml").write_text(PYPROJECT)
    (root / "backend.py").write_text(BACKEND)
    lock(root, write_wheel(wheels))
    for name in ("PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "PIP_CONSTRAINT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(wheels))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setattr(environment, "ROOT", root)
    monkeypatch.setattr(environment, "wheels", wheels, raising=False)
    return environment


def lock(root: Path, digest: str, version: str = "1.0") -> None:
    (root / "requirements.lock").write_text(f"# made by a test\ndep=={version} \\\n    --hash=sha256:{digest}\n")


def install(project) -> Path:
    folder = project.ROOT / ".venv"
    project.locked(folder, [])
    return folder


def value(folder: Path) -> str:
    code = "import dep, sys; print(dep.VALUE)"
    return subprocess.run([folder / "bin" / "python", "-c", code], capture_output=True, text=True).stdout.strip()


def installed_file(folder: Path, name: str) -> Path:
    [found] = folder.glob(f"lib/python*/site-packages/{name}")
    return found


def refusal(project) -> str:
    with pytest.raises(project.Refused) as caught:
        install(project)
    text = str(caught.value)
    assert "\n" not in text and not (project.ROOT / ".venv" / ".installed").exists()
    return text


def test_from_nothing_and_again(project, capfd):
    folder = install(project)
    assert value(folder) == "1" and (folder / ".installed").is_file()
    assert installed_file(folder, "small_project.pth").read_text() == str(project.ROOT)
    capfd.readouterr()
    project.locked(folder, [])
    assert "Collecting dep" not in capfd.readouterr().out


@pytest.mark.parametrize("damage", ["an empty folder", "no pip", "no python"])
def test_a_half_made_environment_is_made_anew(project, damage, capfd):
    folder = project.ROOT / ".venv"
    if damage == "an empty folder":
        folder.mkdir()
    else:
        subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
        if damage == "no python":
            for path in (folder / "bin").glob("python*"):
                path.unlink()
    project.locked(folder, [])
    assert value(folder) == "1"
    assert ".venv has no working pip, as after an interruption; it is made anew" in capfd.readouterr().out


@pytest.mark.parametrize("damage", ["module", "record"])
def test_an_interrupted_installation_goes_on(made, damage, capfd):
    """pip takes a package for installed when its metadata is there, whatever became of its files."""
    folder = install(made)
    (folder / ".installed").unlink()
    installed_file(folder, "dep.py" if damage == "module" else "dep-1.0.dist-info/RECORD").unlink()
    made.locked(folder, [])
    assert value(folder) == "1" and (folder / ".installed").is_file()
    assert "dep-1.0 was not installed whole; it is installed again" in capfd.readouterr().out


def test_a_changed_lock_is_followed_and_what_else_is_installed_stays(made):
    folder = install(made)
    stays = installed_file(folder, "dep.py").with_name("of_the_user.py")
    stays.write_text("")
    lock(made.ROOT, write_wheel(made.wheels, "2.0", text="VALUE = 2\n"), "2.0")
    made.locked(folder, [])
    assert value(folder) == "2" and stays.exists()


def test_the_distribution_of_the_former_name_goes(made):
    folder = install(made)
    old = installed_file(folder, "dep-1.0.dist-info").with_name("moai-0.1.0.dist-info")
    old.mkdir()
    (old / "METADATA").write_text("Metadata-Version: 2.1\nName: moai\nVersion: 0.1.0\n")
    (old / "RECORD").write_text("".join(f"{old.name}/{name},,\n" for name in ("METADATA", "RECORD", "direct_url.json")))
    (old / "direct_url.json").write_text(f'{{"dir_info": {{"editable": true}}, "url": "{made.ROOT.as_uri()}"}}')
    made.locked(folder, [])
    assert not old.exists()


def test_an_index_without_a_locked_version(made):
    lock(made.ROOT, "0" * 64, "3.0")
    assert refusal(made) == (
        "the index that pip asks has no dep 3.0, which the lock names; use another index (PIP_INDEX_URL), "
        "or lock what this one has: make lock"
    )


def test_a_lock_that_does_not_fit_the_platform(made, monkeypatch):
    (made.wheels / "dep-1.0-py3-none-any.whl").unlink()
    lock(made.ROOT, write_wheel(made.wheels, tag="py3-none-macosx_11_0_riscv64"))
    monkeypatch.setattr(made, "COMMON", ["--platform", "macosx_11_0_riscv64"])
    assert "the lock does not fit " in (text := refusal(made))
    assert "dep 1.0 has no wheel for it; use another Python (make PYTHON=python3.11), or install what fits" in text


def test_another_file_than_the_locked_one(made):
    lock(made.ROOT, "0" * 64)
    expected = "the index gave another file for dep==1.0 than the one that was locked; use another index"
    assert refusal(made).startswith(expected)


def test_no_index_answers(made, monkeypatch):
    monkeypatch.delenv("PIP_NO_INDEX")
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "1")
    (made.wheels / "dep-1.0-py3-none-any.whl").unlink()
    expected = "no package index answers; check the network, or name an index: PIP_INDEX_URL=.. make .."
    assert refusal(made) == expected


def test_a_lock_that_is_missing(project):
    (project.ROOT / "requirements.lock").unlink()
    assert refusal(project) == "requirements.lock is missing; get it back with: git checkout requirements.lock"


def test_a_full_disk_is_told_from_other_failures(project):
    full = "Collecting x\nERROR: Could not install packages due to an OSError: [Errno 28] No space left on device\n"
    assert project.reason(Path("python"), full).startswith("no space is left on the disk; make room (7 GB")
    other = "Collecting x\nERROR: something else.\n"
    assert project.reason(Path("python"), other) == (
        "pip stopped: something else; fix it and run the same make again, it goes on from here"
    )


def test_a_python_that_is_too_old(project, monkeypatch):
    monkeypatch.setattr(project.sys, "version_info", (3, 9, 18))
    with pytest.raises(project.Refused, match=r"Python 3.9.18 is too old, 3.11 is the oldest.*make PYTHON="):
        project.check_python()


@pytest.mark.parametrize("module", ["venv", "ensurepip"])
def test_a_python_without_the_modules_that_make_environments(project, monkeypatch, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(project.Refused, match=f"has no {module} module; install it .*apt install python3.*-venv"):
        project.check_python()


def test_a_python_that_cannot_make_an_environment(project, monkeypatch):
    monkeypatch.setattr(project.sys, "executable", shutil.which("false"))
    assert "could not make an environment in " in (text := refusal(project)) and "make PYTHON=" in text


def test_a_refusal_is_one_line_and_a_ctrl_c_says_how_to_go_on(project, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["environment.py", str(project.ROOT / ".venv")])
    (project.ROOT / "requirements.lock").unlink()
    with pytest.raises(SystemExit, match="1"):
        project.main()
    expected = "error: requirements.lock is missing; get it back with: git checkout requirements.lock\n"
    assert capsys.readouterr().err == expected

    (project.ROOT / "requirements.lock").touch()
    (project.ROOT / ".venv").touch()
    with pytest.raises(SystemExit, match="1"):
        project.main()
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("error: ") and said.endswith("Not a directory; fix it and run the same make again")

    def interrupt(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(project, "locked", interrupt)
    with pytest.raises(SystemExit, match="130"):
        project.main()
    assert "stopped; the same make goes on from here" in capsys.readouterr().err


def test_packages_that_moved_since_the_lock(made):
    folder = install(made)
    assert versions.moved(folder) == [] or {name for name, *_ in versions.moved(folder)} <= {"setuptools"}
    lock(made.ROOT, "0" * 64, "0.9")
    assert ("dep", "0.9", "1.0") in versions.moved(folder)
    shown = versions.table(("package", "locked", "installed"), versions.moved(folder)).splitlines()
    assert shown[0].split() == ["package", "locked", "installed"]
    assert ["dep", "0.9", "1.0"] in [line.split() for line in shown]


# make -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("target", ["quickstart", "test", "test-floor", "test-newest", "lock"])
def test_make_without_a_python_that_will_do(target, tmp_path):
    old = tmp_path / "python3"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    shutil.copy(ROOT / "Makefile", tmp_path)
    (tmp_path / "requirements.lock").touch()
    (tmp_path / "pyproject.toml").touch()
    (tmp_path / ".ci").mkdir()
    (tmp_path / ".ci" / "environment.py").touch()
    command = ["make", target, f"PYTHON={old}"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode != 0
    expected = "error: no Python 3.11 or newer found; install one, or name it: make PYTHON=/path/to/python3\n"
    assert expected in done.stderr


def test_old_pythons_can_read_the_script():
    """Far enough to be told that they are too old: no syntax after 3.8."""
    import ast

    ast.parse(SCRIPT.read_text(encoding="utf-8"), feature_version=(3, 8))
