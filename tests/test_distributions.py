"""Wheels and sdists of moai and of its plugins: what is in them, and that they work where there is no clone.

All are built here from a copy of the repository's files, so that nothing is left in the clone, and without a network.
The core and two plugins are then installed into a new virtual environment. It has the third-party packages of the
environment that the tests run in, and nothing of ours but the three wheels.
"""

from __future__ import annotations

import email
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import venv
import zipfile
from dataclasses import dataclass
from email.message import Message
from pathlib import Path, PurePath

import build
import pytest

from moai.recipe.loading import load_recipe

ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.slow  # builds every wheel and installs some
PROJECTS = [".", *sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/pyproject.toml"))]
PLUGINS = ("moai-geometry", "moai-scenes", "moai-shapes")  # that are installed
AROUND = {"pyproject.toml", "README.md", "LICENSE", "MANIFEST.in"}  # in an sdist, beside the code
WRITTEN = re.compile(r"PKG-INFO|setup\.cfg|[^/]+\.egg-info/.*")  # by setuptools


@dataclass
class Built:
    """What became of one project: its sdist, the sdist's wheel, and the wheel made without an sdist."""

    project: Path
    sdist: Path
    wheel: Path
    direct: Path

    @property
    def declared(self) -> dict:
        """The table ``project`` of its pyproject.toml."""
        return tomllib.loads((self.project / "pyproject.toml").read_text(encoding="utf-8"))["project"]

    @property
    def metadata(self) -> Message:
        """The wheel's METADATA."""
        with zipfile.ZipFile(self.wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
            return email.message_from_bytes(archive.read(name))

    def in_sdist(self) -> dict[str, bytes]:
        """File -> content, without the folder around it and what setuptools wrote."""
        with tarfile.open(self.sdist) as archive:
            files = {item.name.partition("/")[2]: item for item in archive.getmembers() if item.isfile()}
            return {name: archive.extractfile(i).read() for name, i in files.items() if not WRITTEN.fullmatch(name)}

    def in_wheel(self, wheel: Path | None = None) -> dict[str, bytes]:
        """File -> content, without the metadata."""
        with zipfile.ZipFile(wheel or self.wheel) as archive:
            return {name: archive.read(name) for name in archive.namelist() if ".dist-info/" not in name}

    def licence(self) -> str:
        with zipfile.ZipFile(self.wheel) as archive:
            [name] = [name for name in archive.namelist() if name.endswith(".dist-info/licenses/LICENSE")]
            return archive.read(name).decode()

    def code(self) -> dict[str, bytes]:
        """The files of the repository that are to be installed, by their names in the wheel."""
        core = (self.project / "moai").is_dir()
        found = {}
        for path in self.project.rglob("*"):
            name = path.relative_to(self.project)
            if path.is_dir() or set(name.parts) & {"tests", "build"} or WRITTEN.fullmatch(name.as_posix()):
                continue
            if core and name.parts[0] == "recipes":
                name = "moai" / name
            if name.parts[0] == "moai" if core else name.as_posix() not in AROUND:
                found[name.as_posix()] = path.read_bytes()
        return found


@pytest.fixture(scope="module")
def copy(tmp_path_factory) -> Path:
    """The files that git tracks or would track, as they are now."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\0")
    target = tmp_path_factory.mktemp("copy")
    for name in filter(None, set(listed)):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def built(copy, tmp_path_factory) -> dict[str, Built]:
    """Every project, built by the setuptools that is installed here; nothing is fetched."""
    made = {}
    for name in PROJECTS:
        folder, project = tmp_path_factory.mktemp("dist"), copy / name
        direct = Path(builder(project).build("wheel", folder / "direct"))  # first: from files that nothing was built of
        sdist = Path(builder(project).build("sdist", folder))
        with tarfile.open(sdist) as archive:
            archive.extractall(folder, filter="data")
        wheel = builder(folder / sdist.name.removesuffix(".tar.gz")).build("wheel", folder)
        made[name] = Built(project, sdist, Path(wheel), direct)
    return made


def builder(project: Path) -> build.ProjectBuilder:
    def quiet(command, cwd=None, extra_environ=None):
        done = subprocess.run(command, cwd=cwd, env={**os.environ, **(extra_environ or {})}, capture_output=True)
        assert done.returncode == 0, done.stdout.decode() + done.stderr.decode()
        assert b"SetuptoolsDeprecationWarning" not in done.stderr and b"would be ignored" not in done.stderr

    return build.ProjectBuilder(project, runner=quiet)


@pytest.fixture(params=PROJECTS)
def one(request, built) -> Built:
    return built[request.param]


def test_the_wheel_holds_the_code_and_its_files_and_nothing_else(one):
    assert one.in_wheel() == one.code() and len(one.code()) > 0
    assert one.wheel.name.endswith("-py3-none-any.whl")


def test_the_core_brings_its_types_recipes_and_templates(built):
    files = set(built["."].in_wheel())
    assert {"moai/py.typed", "moai/recipes/easy-vqa.yaml", "moai/recipes/ablations/step2-only.yaml"} <= files
    assert {"moai/evaluation/report/page.html.j2", "moai/scaffold/pyproject.toml.txt"} <= files


def test_the_sdist_holds_what_the_wheel_is_made_of(one):
    around = {path.name for path in one.project.iterdir()} & AROUND
    code = {name.replace("moai/recipes/", "recipes/") for name in one.code()}
    assert set(one.in_sdist()) == code | around
    assert {"pyproject.toml", "README.md", "LICENSE"} <= around
    assert one.in_wheel(one.direct) == one.in_wheel()


def test_no_path_of_this_machine_is_in_them(one, copy):
    places = [str(place).encode() for place in (ROOT, copy, Path.home(), sys.prefix) if len(str(place)) > 1]
    for name, content in [*one.in_wheel().items(), *one.in_sdist().items()]:
        assert [place for place in places if place in content] == [], name
        assert "/test_" not in name.replace("moai/scaffold/test_", "")


def test_the_metadata_is_what_pyproject_says(one):
    given, declared = one.metadata, one.declared
    assert given["Name"] == declared["name"] and given["Requires-Python"] == declared["requires-python"] == ">=3.11"
    assert given["License-Expression"] == declared["license"]
    assert given["Description-Content-Type"] == "text/markdown"
    assert readme(given) == (one.project / "README.md").read_text(encoding="utf-8")


def test_ours_depend_on_moai_vlm(built):
    needs = {name: {requirement(line) for line in one.metadata.get_all("Requires-Dist")} for name, one in built.items()}
    assert built["."].metadata["Name"] == "moai-vlm" and len(needs) > 8
    for name, needed in needs.items():
        ours = {other for other in needed if other.startswith("moai")}
        assert ours == (set() if name == "." else {"moai-vlm"}), name


def test_each_carries_its_licence(built):
    for name, one in built.items():
        agpl = name == "plugins/moai-ultralytics"
        assert one.metadata["License-Expression"] == ("AGPL-3.0-only" if agpl else "Apache-2.0")
        assert ("GNU AFFERO GENERAL PUBLIC LICENSE" in one.licence()) is agpl, name
        assert ("AGPL-3.0" in one.metadata["Summary"] and "AGPL-3.0" in readme(one.metadata)[:1000]) is agpl, name
        assert agpl or one.licence() == built["."].licence(), name


def readme(metadata: Message) -> str:
    """The long description."""
    return metadata.get_payload(decode=True).decode("utf-8")


def requirement(line: str) -> str:
    return re.match(r"[A-Za-z0-9._-]+", line)[0].lower().replace("_", "-")


# Installed, outside the clone ---------------------------------------------------------------------------------------


@dataclass
class Installed:
    """A virtual environment with some wheels of ours, and an empty folder to work in."""

    python: Path
    folder: Path
    environment: dict[str, str]

    def run(self, *command: object) -> str:
        """Run a command of the environment in the folder and return its standard output."""
        words = [str(self.python.with_name(str(command[0]))), *map(str, command[1:])]
        done = subprocess.run(
            words, cwd=self.folder, env=self.environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        assert done.returncode == 0, f"{words}\n{done.stdout}{done.stderr}"
        return done.stdout

    def refused(self, *command: object) -> str:
        """Run a command that fails and return its standard error."""
        words = [str(self.python.with_name(str(command[0]))), *map(str, command[1:])]
        done = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode and "Traceback" not in done.stderr, f"{words}\n{done.stdout}{done.stderr}"
        return done.stderr

    def install(self, *what: object) -> None:
        """Install from files alone, by the pip of the environment that the tests run in."""
        command = [sys.executable, "-m", "pip", "--python", str(self.python), "install", "--quiet", "--no-index"]
        command += ["--no-deps", "--no-build-isolation", *map(str, what)]
        done = subprocess.run(command, cwd=self.folder, env=self.environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory) -> Installed:
    root = tmp_path_factory.mktemp("outside")
    venv.create(root / "env", symlinks=True)
    python = root / "env" / ("Scripts" if os.name == "nt" else "bin") / "python"
    [site] = (root / "env").rglob("site-packages")
    (site / "third-party.pth").write_text(f"{link_third_party(root / 'third-party')}\n")
    (root / "work").mkdir()
    hidden = ("PYTHONPATH", "PYTHONHOME", "MOAI_PLUGINS", "MOAI_DEBUG", "VIRTUAL_ENV")
    environment = {name: value for name, value in os.environ.items() if name not in hidden}
    environment |= {"MOAI_CACHE": str(root / "cache"), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    made = Installed(python, root / "work", environment)
    made.install(*(built[name].wheel for name in (".", *(f"plugins/{plugin}" for plugin in PLUGINS))))
    return made


def link_third_party(folder: Path) -> Path:
    """Link every installed package but ours; a folder that a .pth names has no .pth files read, so no editables."""
    folder.mkdir()
    for place in dict.fromkeys(path for path in sys.path if PurePath(path).name in ("site-packages", "dist-packages")):
        for entry in Path(place).iterdir():
            ours = entry.name.startswith(("moai", "__editable__", "__pycache__")) or entry.suffix == ".pth"
            if not ours and not (folder / entry.name).exists():
                (folder / entry.name).symlink_to(entry, target_is_directory=entry.is_dir())
    return folder


def test_the_import_comes_from_the_wheel(installed):
    code = "import moai, moai.recipes, sys; print(moai.__file__, moai.recipes.__file__, *sys.path, sep='\\n')"
    package, recipes, *path = installed.run("python", "-c", code).splitlines()
    assert PurePath(package).parts[-3:] == ("site-packages", "moai", "__init__.py")
    assert Path(package).is_relative_to(installed.python.parents[1]) and recipes.startswith(str(Path(package).parent))
    assert not any(Path(place) == ROOT or ROOT in Path(place).parents for place in path[1:] if place)


def test_the_requirements_of_ours_are_met_and_moai_is_no_distribution(installed):
    code = "import importlib.metadata as m; print(*sorted(d.name for d in m.distributions() if d.name[:4] == 'moai'))"
    assert installed.run("python", "-c", code).split() == [*PLUGINS, "moai-vlm"]
    command = [sys.executable, "-m", "pip", "--python", str(installed.python), "check"]
    said = subprocess.run(command, env=installed.environment, capture_output=True, text=True).stdout
    assert said.strip() and [line for line in said.splitlines() if line.startswith("moai")] == []


def test_the_experts_are_listed(installed):
    listed = installed.run("moai", "experts")
    assert "moai-shapes 0.1.0" in listed and "moai-geometry 0.1.0" in listed and "tally" not in listed


def test_a_picture_is_perceived(installed, picture):
    picture.save(installed.folder / "picture.png")
    seen = installed.run("moai", "perceive", "picture.png", "--experts", "shapes,geometry")
    assert "[0.19, 0.19, 0.83, 0.83] red circle" in seen


def test_recipes_are_found(installed):
    code = "import sys; from moai.recipe.loading import load_recipe; print(load_recipe(sys.argv[1]).to_yaml(), end='')"
    ours = load_recipe(ROOT / "recipes" / "easy-vqa.yaml").to_yaml()
    assert installed.run("python", "-c", code, "easy-vqa") == ours
    assert "name: step2-only\n" in installed.run("python", "-c", code, "ablations/step2-only")
    assert "scenes-without-tally" in installed.run("moai", "ablate", "ablations-scenes", "--dry-run")


def test_what_is_not_installed_names_the_plugin(installed):
    for command, fix in (
        (("train", "easy-vqa"), "the data set 'easy-vqa' comes with a plugin .*; pip install moai-easy-vqa"),
        (("quickstart",), "the recipe 'quickstart' comes with a plugin .*; pip install moai-words"),
        (("train", "official"), "the recipe 'official' comes with a plugin .*; pip install moai-official"),
        (("import-official", "a", "b"), "it comes with a plugin: pip install moai-official"),
    ):
        assert re.search(fix, installed.refused("moai", *command))


def test_a_new_expert_is_written_installed_and_passes_its_own_test(installed):
    assert "moai-barcode" in installed.run("moai", "new-expert", "barcode", "--role", "barcode")
    installed.install("./moai-barcode")
    assert re.search(r"\b[1-9]\d* passed", installed.run("python", "-m", "pytest", "-q", "moai-barcode"))
    assert "moai-barcode 0.1.0" in installed.run("moai", "experts", "barcode")
