"""Resolve versions with uv: an environment of the lowest or the newest that are allowed, and the lock.

    python .ci/versions.py floor  .venv-floor    the lowest version of each direct dependency
    python .ci/versions.py newest .venv-newest   whatever the index has today
    python .ci/versions.py moved  .venv-newest   the packages that are another version than the lock's
    python .ci/versions.py lock                  renew requirements.lock and moai/tested.json

Knows: uv, pip and pyproject.toml; nothing of moai.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
from pathlib import Path

import environment
from environment import LOCK, MARK, Refused, editable, last_line, make, pip, plugins

TESTED, TESTED_PYTHONS = "moai/tested.json", ("3.11", "3.12", "3.13")
# ultralytics asks for it, and it would write over the headless build that every other package here uses.
EXCLUDED = ("opencv-python",)


def main() -> None:
    """Run one command."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("what", choices=("floor", "newest", "moved", "lock"))
    parser.add_argument("folder", nargs="?", type=Path, help="the environment's folder")
    given = parser.parse_args()
    if (given.what == "lock") is not (given.folder is None):
        parser.error("name a folder for floor, newest and moved, and none for lock")
    commands = {
        "lock": lock,
        "moved": lambda: print(table(("package", "locked", "installed"), moved(given.folder))),
    }
    environment.run(commands.get(given.what, lambda: resolved(given.folder, given.what)))


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
    (environment.ROOT / LOCK).write_text(head + text, encoding="utf-8")
    write_tested()
    print(f"wrote {LOCK} and {TESTED}; now: make test, make test-floor, make test-newest")


def write_tested() -> None:
    """Write the locked versions of direct dependencies, for each Python that is tested."""
    python, wanted = make(environment.ROOT / ".venv-uv"), direct()
    versions = {
        number: {name: version for name, version in sorted(locked_versions(python, number).items()) if name in wanted}
        for number in TESTED_PYTHONS
    }
    (environment.ROOT / TESTED).write_text(json.dumps({"versions": versions}, indent=1) + "\n", encoding="utf-8")


def tool() -> str:
    """Return the locked uv, in a small environment of its own; the newest where there is no lock."""
    python, lock_file = make(environment.ROOT / ".venv-uv"), environment.ROOT / LOCK
    text = lock_file.read_text(encoding="utf-8") if lock_file.is_file() else ""
    pinned = re.search(r"^uv==.*(?:\\\n.*)*", text, re.MULTILINE)
    with Scratch("uv.txt", [pinned.group(0) if pinned else "uv"]) as wanted:
        pip(python, ["--quiet", "-r", wanted])
    return str(python.with_name("uv.exe" if os.name == "nt" else "uv"))


def run_uv(command: list[str], capture: bool = False) -> str:
    """Run uv; a failure is one sentence after what uv itself said."""
    done = subprocess.run(command, cwd=environment.ROOT, text=True, stdout=subprocess.PIPE if capture else None)
    if done.returncode:
        raise Refused(f"uv could not resolve or install (exit code {done.returncode}); its message is above")
    return done.stdout or ""


class Scratch:
    """A small file beside the lock for the length of a block; paths in it are relative to the project."""

    def __init__(self, name: str, lines) -> None:
        self.path = environment.ROOT / f".{name}"
        self.path.write_text("\n".join(lines) + "\n", encoding="utf-8")

    def __enter__(self) -> str:
        return self.path.name

    def __exit__(self, *_) -> None:
        self.path.unlink()


# What this project is made of -------------------------------------------------------------------------------------


def own() -> list[str]:
    """Lines of a requirements file: the project, its plugins, and what builds them."""
    pairs = editable()
    return [*(f"{flag} {path}" for flag, path in zip(pairs[::2], pairs[1::2])), *build_requirements()]


def metadata() -> list[dict]:
    """Every pyproject.toml of the project, parsed."""
    import tomllib

    files = [environment.ROOT / folder / "pyproject.toml" for folder in (".", *plugins())]
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
    command = [str(python), "-c", PINS, str(environment.ROOT / LOCK), number]
    done = subprocess.run(command, capture_output=True, text=True)
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
