"""Compare the installed versions of dependencies with the tested and allowed ones, without importing them.

Knows: the metadata of installed distributions, and ``tested.json``, which holds the versions of the project's lock.
"""

from __future__ import annotations

import importlib.metadata as metadata
import json
import logging
import re
import sys
import threading
from dataclasses import dataclass
from importlib.resources import files
from typing import TYPE_CHECKING, Literal

from moai.errors import DependencyError

if TYPE_CHECKING:
    from packaging.requirements import Requirement
    from packaging.specifiers import SpecifierSet

log = logging.getLogger("moai")
DISTRIBUTION = "moai-vlm"
DEVELOPMENT = ("test",)  # extras that only the project's own tests use
# A new version of one of these can change what a model computes. One of click or rich cannot.
MODEL_LIBRARIES = (
    "transformers", "torch", "torchvision", "accelerate", "timm", "safetensors", "huggingface-hub", "gguf", "numpy",
    "pillow", "scipy",
)  # fmt: skip
State = Literal["fine", "newer", "old", "outside", "missing", "unreadable"]


@dataclass(frozen=True)
class VersionList:
    """Hold the versions that the project was tested with."""

    python: tuple[str, ...]
    """Of Python, as ``3.12``."""
    versions: dict[str, str]
    """Normalised distribution name -> version with this Python, or with the newest that was tested."""


@dataclass(frozen=True)
class Dependency:
    """Describe one requirement of one distribution, and what is installed for it."""

    name: str
    """Normalised, as ``huggingface-hub``."""
    needed_by: str
    installed: str | None
    tested: str | None
    allowed: str
    """As ``>=5.20,<6``; empty where every version is."""
    extras: tuple[str, ...]
    """The extras that ask for it; none where the distribution always needs it."""
    state: State
    """``newer`` than tested, ``old``: below the floor, ``outside`` the allowed range in another way, ``missing``,
    ``unreadable``: its metadata are damaged, or ``fine``."""


def normalize(name: str) -> str:
    """Return a distribution's name as PEP 503 writes it: ``Hugging_Face.Hub`` -> ``hugging-face-hub``."""
    return re.sub(r"[-_.]+", "-", name).lower()


def read_tested() -> VersionList:
    """Read ``tested.json``.

    Raises:
        DependencyError: it is missing or damaged.
    """
    try:
        locked = json.loads(files("moai").joinpath("tested.json").read_text(encoding="utf-8"))["versions"]
        newest = max(locked, key=lambda number: tuple(map(int, number.split("."))))
        own = locked.get(".".join(map(str, sys.version_info[:2])), locked[newest])
        return VersionList(tuple(locked), {normalize(name): str(version) for name, version in own.items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise DependencyError(
            f"moai's list of tested versions cannot be read ({type(error).__name__}); "
            f"install moai again: pip install --force-reinstall --no-deps {DISTRIBUTION} (in a clone: -e .)"
        ) from error


def read_dependencies(distribution: str = DISTRIBUTION, tested: VersionList | None = None) -> list[Dependency]:
    """List the direct dependencies of an installed distribution, by name; those of its extras after the others.

    Args:
        distribution: moai's own, or a plugin's.
        tested: versions to compare with; left out, those of ``tested.json``.

    Raises:
        DependencyError: the distribution, ``packaging`` or ``tested.json`` cannot be read.
    """
    try:
        from packaging.specifiers import SpecifierSet
    except ImportError as error:
        raise DependencyError(
            f"the package 'packaging' cannot be imported ({error}); install it: pip install --force-reinstall packaging"
        ) from error

    versions = (tested or read_tested()).versions
    allowed: dict[str, SpecifierSet] = {}
    extras: dict[str, list[str]] = {}
    for requirement, extra in _requirements(distribution):
        name = normalize(requirement.name)
        allowed[name] = allowed.get(name, SpecifierSet()) & requirement.specifier
        extras.setdefault(name, []).append(extra)
    found = []
    for name, specifier in allowed.items():
        installed, state = _examine(name, specifier, versions.get(name))
        only = () if "" in extras[name] else tuple(dict.fromkeys(extras[name]))
        found.append(Dependency(name, distribution, installed, versions.get(name), _in_words(specifier), only, state))
    return sorted(found, key=lambda dependency: (bool(dependency.extras), dependency.name))


def is_newer(installed: str, tested: str) -> bool:
    """Return whether ``installed`` is newer than ``tested`` in major, minor or patch: ``2.14.1+cpu`` is not newer."""
    return _release(installed) > _release(tested)


_logged = False
_lock = threading.Lock()


def warn_of_newer_versions() -> None:
    """Log one line, once per process, where libraries that models run on are newer than what was tested.

    Python's logging prints it on stderr unless the program has set it up otherwise.
    """
    global _logged
    with _lock:
        if _logged:
            return
        _logged = True
    try:
        text = describe_newer(read_dependencies())
    except DependencyError as error:  # moai is imported from a folder that was never installed; `moai doctor` says so
        log.debug("versions are not compared with the tested ones: %s", error)
        return
    if text:
        log.warning("%s", text)


def describe_newer(dependencies: list[Dependency]) -> str:
    """Return one sentence about the libraries that models run on and that are newer than tested; ``""`` for none."""
    from moai import __version__

    known = {dependency.name: dependency for dependency in dependencies if dependency.state == "newer"}
    newer = [known[name] for name in MODEL_LIBRARIES if name in known]
    if not newer:
        return ""
    installed = _listed([f"{dependency.name} {dependency.installed}" for dependency in newer])
    tested = _listed([str(dependency.tested) for dependency in newer])
    verb = "is" if len(newer) == 1 else "are"
    return (
        f"{installed} {verb} newer than what moai {__version__} was tested with ({tested}); "
        "if something fails, `moai doctor` says how to go back"
    )


def _requirements(distribution: str) -> list[tuple[Requirement, str]]:
    """List each requirement that applies here, and the extra that asks for it (``""``: always needed)."""
    from packaging.requirements import InvalidRequirement, Requirement

    try:
        found = metadata.distribution(distribution)
        requirements = [Requirement(text) for text in found.requires or ()]
    except metadata.PackageNotFoundError as error:
        raise DependencyError(
            f"'{distribution}' is not installed as a distribution, so what it needs is not known; "
            "install it: in a clone pip install -e . in its folder"
        ) from error
    except InvalidRequirement as error:
        raise DependencyError(f"'{distribution}' has a requirement that cannot be read ({error}); update it") from error
    extras = [name for name in found.metadata.get_all("Provides-Extra") or () if name not in DEVELOPMENT]
    chosen = []
    for requirement in requirements:
        if normalize(requirement.name) == normalize(distribution):
            continue  # an extra that gathers others
        marker = requirement.marker
        for extra in ("", *extras):
            if marker is None or marker.evaluate({"extra": extra}):
                chosen.append((requirement, extra))
                break  # one that is always needed is also needed with each extra
    return chosen


def _examine(name: str, allowed: SpecifierSet, tested: str | None) -> tuple[str | None, State]:
    from packaging.version import InvalidVersion, Version

    try:
        installed = metadata.version(name)
    except metadata.PackageNotFoundError:
        return None, "missing"
    except (KeyError, OSError):  # a folder that an interrupted installation left: no metadata in it
        return None, "unreadable"
    if not installed:
        return None, "unreadable"
    try:
        version = Version(installed)
    except InvalidVersion:
        return installed, "unreadable"
    if not allowed.contains(version, prereleases=True):
        floors = [Version(part.version) for part in allowed if part.operator in (">=", ">", "~=")]
        return installed, "old" if any(version < floor for floor in floors) else "outside"
    return installed, "newer" if tested is not None and is_newer(installed, tested) else "fine"


def _release(version: str) -> tuple[int, ...]:
    from packaging.version import Version

    read = Version(version)
    return (read.epoch, *(*read.release, 0, 0)[:3])


def _in_words(allowed: SpecifierSet) -> str:
    """Write a version range with its lowest version first: ``>=5.20,<6``."""
    return ",".join(sorted(map(str, allowed), key=lambda part: (part.startswith("<"), part)))


def _listed(words: list[str]) -> str:
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"
