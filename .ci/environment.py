"""Make an environment of this project and install into it exactly what requirements.lock pins, by pip, with hashes.

    python .ci/environment.py .venv

Knows: venv and pip; nothing of moai. It runs before anything is installed, so it needs the standard library alone, and
it is written so that an old Python can read it far enough to say that it is too old.
"""

from __future__ import annotations

import argparse
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
LOCK = "requirements.lock"
OLDEST = (3, 11)
MARK = ".installed"  # in the environment's folder, written last
GIGABYTES = 7
# What a wheel is asked for as, to tell an index without a version from a version without a wheel for this machine.
COMMON = ["--platform", "manylinux_2_28_x86_64", "--platform", "manylinux2014_x86_64", "--python-version", "3.11"]


class Refused(Exception):
    """One sentence that says what is wrong and what fixes it."""


def main() -> None:
    """Make the environment that the command line names."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", default=".venv", help="the environment's folder [.venv]")
    parser.add_argument("--pip-args", default="", help="passed to pip install")
    given = parser.parse_args()
    run(lambda: locked(Path(given.folder), shlex.split(given.pip_args)))


def run(command) -> None:
    """Run a command; what goes wrong is one sentence on stderr and exit code 1."""
    try:
        check_python()
        command()
    except Refused as refusal:
        print(f"error: {refusal}", file=sys.stderr)
        sys.exit(1)
    except OSError as error:
        print(f"error: {error.filename}: {error.strerror}; fix it and run the same make again", file=sys.stderr)
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
    return f"pip stopped: {last_line(said)}; fix it and run the same make again, it goes on from here"


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


def plugins() -> list[str]:
    """Folders of the plugins that come with this project, relative to it."""
    return sorted(path.parent.relative_to(ROOT).as_posix() for path in ROOT.glob("plugins/*/pyproject.toml"))


def editable() -> list[str]:
    """The project and its plugins as pip and uv install them: in place."""
    return [part for path in [".[test]", *plugins()] for part in ("-e", path)]


if __name__ == "__main__":
    main()
