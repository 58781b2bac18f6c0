"""Make an environment of this project and install into it what was tested, the oldest allowed, or the newest there is.

    python .ci/environment.py locked .venv          exactly what requirements.lock pins, by pip, with hashes
    python .ci/environment.py floor  .venv-floor    the lowest version of each direct dependency, resolved by uv
    python .ci/environment.py newest .venv-newest   whatever the index has today, resolved by uv
    python .ci/environment.py lock                  renew requirements.lock and moai/tested.json, by uv
    python .ci/environment.py moved .venv-newest    the packages that are another version than the lock's

Knows: venv, pip and uv; nothing of moai. It runs before anything is installed, so it needs the standard library alone,
and it is written so that an old Python can read it far enough to say that it is too old.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK, TESTED = "requirements.lock", "moai/tested.json"
OLDEST, TESTED_PYTHONS = (3, 11), ("3.11", "3.12", "3.13")
# ultralytics asks for it, and it would write over the headless build that every other package here uses.
EXCLUDED = ("opencv-python",)
MARK = ".installed"  # in the environment's folder, written last
GIGABYTES = 7
# What a wheel is asked for as, to tell an index without a version from a version without a wheel for this machine.
COMMON = ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64", "--python-version", "3.11"]


class Refused(Exception):
    """One sentence that says what is wrong and what mends it."""


def main() -> None:
    """Run one command; a refusal is one sentence on stderr and exit code 1."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("locked", "floor", "newest", "lock", "moved"))
    parser.add_argument("folder", nargs="?", default=".venv", help="the environment's folder [.venv]")
    parser.add_argument("--pip-args", default="", help="passed to pip install of the locked environment")
    given = parser.parse_args()
    folder = Path(given.folder)
    try:
        check_python()
        if given.what == "locked":
            locked(folder, shlex.split(given.pip_args))
        elif given.what == "lock":
            lock()
        elif given.what == "moved":
            print(table(("package", "locked", "installed"), moved(folder)))
        else:
            resolved(folder, given.what)
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; mend it and run the same make again", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        print("\nstopped; the same make goes on from here", file=sys.stderr)
        sys.exit(130)


def check_python() -> None:
    """Refuse a Python that is too old, or that cannot make environments."""
    version = ".".join(map(str, sys.version_info[:3]))
    if sys.version_info < OLDEST:
        raise Refused(
            f"Python {version} is too old, 3.11 is the oldest that will do; install one, or name it: "
            "make PYTHON=/path/to/python3"
        )
    try:
        import ensurepip  # noqa: F401
        import venv  # noqa: F401
    except ImportError as error:
        short = ".".join(map(str, sys.version_info[:2]))
        raise Refused(
            f"Python {version} at {sys.executable} has no {error.name} module; install it (on Debian and Ubuntu: "
            f"apt install python{short}-venv), or name another Python: make PYTHON=/path/to/python3"
        ) from error


def locked(folder: Path, pip_args: list[str]) -> None:
    """Install the lock and this project's own packages, editable; what is there already is kept."""
    if not (ROOT / LOCK).is_file():
        raise Refused(f"{LOCK} is missing; get it back with: git checkout {LOCK}")
    python = make(folder)
    forget_incomplete(folder)
    forget_former_name(python)
    pip(python, ["--require-hashes", "--no-deps", *pip_args, "-r", LOCK])
    # The lock holds what builds them as well, so nothing is asked of an index here.
    pip(python, ["--no-deps", "--no-index", "--no-build-isolation", *editable()])
    (folder / MARK).touch()


def make(folder: Path) -> Path:
    """Make the environment where there is none with a working pip, and return its Python."""
    python = folder / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    recent = f"import sys; sys.exit(sys.version_info < {OLDEST})"
    if answers(python, "-m", "pip", "--version") and answers(python, "-c", recent):
        return python
    if folder.exists():
        print(f"{folder} has no working pip, as after an interruption; it is made anew")
        shutil.rmtree(folder)
    done = subprocess.run([sys.executable, "-m", "venv", str(folder)], capture_output=True, text=True)
    if done.returncode:
        if "No space left" in done.stdout + done.stderr:
            raise Refused(no_space())
        raise Refused(
            f"{sys.executable} could not make an environment in {folder}: {last_line(done.stdout + done.stderr)}; "
            "name another Python: make PYTHON=/path/to/python3"
        )
    return python


def answers(python: Path, *arguments: str) -> bool:
    """Say whether a Python runs and exits with 0."""
    try:
        return subprocess.run([str(python), *arguments], capture_output=True).returncode == 0
    except OSError:
        return False


def forget_incomplete(folder: Path) -> None:
    """Remove the metadata of packages whose files are not all there: pip would take them for installed."""
    for info in folder.glob("[Ll]ib*/**/site-packages/*.dist-info"):
        record = info / "RECORD"
        lines = record.read_text(encoding="utf-8", errors="replace").splitlines() if record.is_file() else []
        names = [line.rpartition(",")[0].rpartition(",")[0].strip('"') for line in lines]
        if not names or not all((info.parent / name).exists() for name in names):
            print(f"{info.name.removesuffix('.dist-info')} was not installed whole; it is installed again")
            shutil.rmtree(info)


def forget_former_name(python: Path) -> None:
    """Uninstall the distribution `moai` that an earlier clone installed: it and `moai-vlm` would both be found."""
    shutil.rmtree(ROOT / "moai.egg-info", ignore_errors=True)
    code = "from importlib.metadata import distribution as d; print(d('moai').read_text('direct_url.json') or '')"
    done = subprocess.run([str(python), "-I", "-c", code], capture_output=True, text=True)
    if not done.returncode and ROOT.as_uri() in done.stdout:
        subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", "moai"], check=True)


def pip(python: Path, arguments: list[str]) -> None:
    """Run `pip install`, show what it says as it says it, and turn a failure into one sentence."""
    command = [str(python), "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *arguments]
    said = []
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            said.append(line)
            if not line.startswith("Requirement already satisfied"):
                print(line, end="", flush=True)
    if process.returncode:
        raise Refused(reason(python, "".join(said)))


def reason(python: Path, said: str) -> str:
    """One sentence for what pip printed before it failed."""
    if "No space left on device" in said:
        return no_space()
    if re.search(r"NewConnectionError|name resolution|ConnectTimeout|ProxyError|Max retries|unreachable", said):
        return "no package index answers; check the network, or name an index: PIP_INDEX_URL=.. make .."
    missing = re.search(r"No matching distribution found for ([\w.-]+)==([\w.+!-]+)", said)
    if missing:
        return missing_sentence(python, *missing.groups())
    if "DO NOT MATCH THE HASHES" in said:
        name = re.search(r"^\s+([\w.-]+==\S+) from", said, re.MULTILINE)
        return (
            f"the index gave another file for {name.group(1) if name else 'a package'} than the one that was locked; "
            "use another index (PIP_INDEX_URL), or lock what this one has: make lock"
        )
    return f"pip stopped: {last_line(said)}; mend it and run the same make again, it goes on from here"


def missing_sentence(python: Path, name: str, version: str) -> str:
    """Say whether the index lacks a locked version, or has it but no wheel for this machine."""
    with tempfile.TemporaryDirectory() as target:
        command = [str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--only-binary=:all:"]
        command += ["--target", target, *COMMON, f"{name}=={version}"]
        elsewhere = subprocess.run(command, cwd=ROOT, capture_output=True).returncode == 0
    if elsewhere:
        here = f"{platform.system()} {platform.machine()} with Python {platform.python_version()}"
        return (
            f"the lock does not fit {here}: {name} {version} has no wheel for it; use another Python "
            "(make PYTHON=python3.11), or install what fits instead: make lock, or pip install -e . without the lock"
        )
    return (
        f"the index that pip asks has no {name} {version}, which the lock names; use another index (PIP_INDEX_URL), "
        "or lock what this one has: make lock"
    )


def no_space() -> str:
    """One sentence for a full disk."""
    return f"no space is left on the disk; make room ({GIGABYTES} GB for an environment) and run the same make again"


def last_line(said: str) -> str:
    """What a program said last, without the word that it starts errors with."""
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return (lines[-1] if lines else "it said nothing").removeprefix("ERROR: ").rstrip(".")


# With uv ----------------------------------------------------------------------------------------------------------


def resolved(folder: Path, what: str) -> None:
    """Make an environment of the lowest or the newest versions, and print which they are."""
    uv, python = tool(), make(folder)
    # Upgrading means that what an earlier call installed is not preferred, also where the lowest version is wanted.
    command = [uv, "pip", "install", "--upgrade", "--python", str(python.absolute())]
    command += ["--resolution", "lowest-direct"] if what == "floor" else []
    with Scratch("excluded.txt", EXCLUDED) as excluded, Scratch("wanted.in", own()) as wanted:
        run_uv([*command, "--excludes", excluded, "-r", wanted])
    pins, have = locked_versions(python), installed_versions(python)
    rows = [(name, pins.get(name, "-"), have[name]) for name in sorted(direct()) if name in have]
    print(table(("package", "locked", what), rows))
    (folder / MARK).touch()


def lock() -> None:
    """Resolve everything anew and write the lock, and the versions of direct dependencies for `moai doctor`."""
    command = [tool(), "pip", "compile", "--quiet", "--upgrade", "--universal", "--python-version", TESTED_PYTHONS[0]]
    command += ["--generate-hashes", "--no-emit-index-url", "--no-emit-find-links", "--no-annotate", "--no-header"]
    command += [part for name in sorted(names()) for part in ("--no-emit-package", name)]
    with Scratch("excluded.txt", EXCLUDED) as excluded, Scratch("wanted.in", own()) as wanted:
        done = run_uv([*command, "--excludes", excluded, wanted], capture=True)
    text = re.sub(r"\n# The following packages were excluded.*", "\n", done, flags=re.DOTALL)
    head = "# What the tests ran with, for every platform and Python that the markers name. Renew it with: make lock\n"
    (ROOT / LOCK).write_text(head + text, encoding="utf-8")
    write_tested()
    print(f"wrote {LOCK} and {TESTED}; now: make test, make test-floor, make test-newest")


def write_tested() -> None:
    """Write the locked versions of direct dependencies, for each Python that is tested."""
    python, wanted = make(ROOT / ".venv-uv"), direct()
    versions = {
        number: {name: version for name, version in sorted(locked_versions(python, number).items()) if name in wanted}
        for number in TESTED_PYTHONS
    }
    (ROOT / TESTED).write_text(json.dumps({"versions": versions}, indent=1) + "\n", encoding="utf-8")


def tool() -> str:
    """Return uv: the one on the path, or the locked one in a small environment of its own."""
    found = shutil.which("uv")
    if found:
        return found
    folder = ROOT / ".venv-uv"
    python = make(folder)
    uv = python.with_name("uv.exe" if os.name == "nt" else "uv")
    if not uv.exists():
        text = (ROOT / LOCK).read_text(encoding="utf-8") if (ROOT / LOCK).is_file() else ""
        pinned = re.search(r"^uv==.*(?:\\\n.*)*", text, re.MULTILINE)
        with Scratch("uv.txt", [pinned.group(0) if pinned else "uv"]) as wanted:
            pip(python, ["--quiet", "-r", wanted])
    return str(uv)


def run_uv(command: list[str], capture: bool = False) -> str:
    """Run uv; a failure is one sentence after what uv itself said."""
    done = subprocess.run(command, cwd=ROOT, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode:
        raise Refused(f"uv could not resolve or install (exit code {done.returncode}); its message is above")
    return done.stdout or ""


class Scratch:
    """A small file beside the lock for the length of a block; paths in it are relative to the project."""

    def __init__(self, name: str, lines) -> None:
        self.path = ROOT / f".{name}"
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __enter__(self) -> str:
        return self.path.name

    def __exit__(self, *_) -> None:
        self.path.unlink()


# What this project is made of -------------------------------------------------------------------------------------


def plugins() -> list[str]:
    """Folders of the plugins that come with this project, relative to it."""
    return sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/pyproject.toml"))


def editable() -> list[str]:
    """The project and its plugins as pip and uv install them: in place."""
    return [part for path in [".[test]", *plugins()] for part in ("-e", path)]


def own() -> list[str]:
    """Lines of a requirements file: the project, its plugins, and what builds them."""
    pairs = editable()
    return [*(f"{flag} {path}" for flag, path in zip(pairs[::2], pairs[1::2])), *build_requirements()]


def metadata() -> list[dict]:
    """Every pyproject.toml of the project, parsed."""
    import tomllib

    files = [ROOT / "pyproject.toml", *(ROOT / folder / "pyproject.toml" for folder in plugins())]
    return [tomllib.loads(path.read_text(encoding="utf-8")) for path in files]


def build_requirements() -> list[str]:
    """What builds the project and its plugins."""
    return sorted({line for data in metadata() for line in data["build-system"]["requires"]})


def names() -> set[str]:
    """Names of the project's own distributions."""
    return {data["project"]["name"] for data in metadata()}


def direct() -> set[str]:
    """Names of direct dependencies, normalised: of the project with its extra `test`, of its plugins, and of builds."""
    lines = list(build_requirements())
    for data in metadata():
        lines += data["project"].get("dependencies", [])
        lines += data["project"].get("optional-dependencies", {}).get("test", [])
    return {normal(re.match(r"[\w.-]+", line).group(0)) for line in lines} - names()


def normal(name: str) -> str:
    """The one spelling of a distribution's name (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def installed_versions(python: Path) -> dict[str, str]:
    """Normalised name -> version of every distribution in an environment."""
    done = subprocess.run([str(python), "-m", "pip", "list", "--format", "json", "--disable-pip-version-check"],
                          capture_output=True, text=True, check=True)  # fmt: skip
    return {normal(entry["name"]): entry["version"] for entry in json.loads(done.stdout)}


PINS = r"""
import re, sys
from pip._vendor.packaging.requirements import Requirement
lock, number = sys.argv[1:]
given = {"python_version": number, "python_full_version": number + ".0"} if number else {}
for line in open(lock, encoding="utf-8"):
    if re.match(r"[\w.-]+==", line):
        pin = Requirement(line.rstrip().rstrip("\\"))
        if pin.marker is None or pin.marker.evaluate(given):
            print(pin.name, next(iter(pin.specifier)).version)
"""


def locked_versions(python: Path, number: str = "") -> dict[str, str]:
    """Normalised name -> version that the lock pins on this platform, for ``python`` itself or Python ``number``."""
    done = subprocess.run([str(python), "-c", PINS, str(ROOT / LOCK), number], capture_output=True, text=True)
    if done.returncode:
        raise Refused(f"{LOCK} cannot be read: {last_line(done.stderr)}; get it back with: git checkout {LOCK}")
    return {normal(line.split()[0]): line.split()[1] for line in done.stdout.splitlines()}


def moved(folder: Path) -> list[tuple[str, str, str]]:
    """Packages of an environment that the lock pins to another version, or not at all."""
    python = make(folder)
    pins, have = locked_versions(python), installed_versions(python)
    skipped = {*names(), "pip"}
    return [(name, pins.get(name, "-"), have[name]) for name in sorted(have)
            if name not in skipped and pins.get(name) != have[name]]  # fmt: skip


def table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """Columns of equal width."""
    every = [head, *rows]
    widths = [max(len(row[column]) for row in every) for column in range(len(head))]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in every)


if __name__ == "__main__":
    main()
