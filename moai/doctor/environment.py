"""Examine Python, the platform, moai's own installation, and the versions of all dependencies."""

from __future__ import annotations

import importlib.metadata as metadata
import os
import platform
import sys
from pathlib import Path
from typing import Any

import moai
from moai.dependencies import DISTRIBUTION, Dependency, read_dependencies, read_tested
from moai.doctor.findings import Findings, describe_path
from moai.doctor.plugins import plugin_distributions
from moai.errors import DependencyError

OTHER = "moai"  # the name on the package index belongs to another project, which installs into the same folder


def examine_installation(findings: Findings) -> dict[str, Any]:
    """Report version and folder, and whether the installed metadata are those of this code."""
    installed = _version(DISTRIBUTION)
    if installed not in (None, moai.__version__):
        findings.warning(
            DISTRIBUTION,
            f"{DISTRIBUTION} {installed} is installed, but the code is {moai.__version__}",
            "install it again: in a clone pip install -e . in its folder",
        )
    if _version(OTHER) is not None:
        findings.warning(
            OTHER,
            f"the distribution '{OTHER}' is installed as well, which is another project or an older moai",
            f"pip uninstall {OTHER}, then pip install --force-reinstall --no-deps {DISTRIBUTION} (in a clone: -e .)",
        )
    folder = Path(moai.__file__).parent
    return {"version": moai.__version__, "installed": installed, "folder": describe_path(folder)}


def examine_python(findings: Findings) -> dict[str, Any]:
    """Report Python's version, the tested and allowed versions, and the executable."""
    version = ".".join(map(str, sys.version_info[:3]))
    series = ".".join(map(str, sys.version_info[:2]))
    tested, allowed = read_tested().python, _python_range()
    if allowed and not _contains(allowed, version):
        fix = f"make a new environment with one that does: python{tested[-1]} -m venv .venv"
        findings.error("python", f"Python {version} does not fit {allowed}", fix)
    elif series not in tested:
        fix = f"if something fails, use Python {tested[-1]}"
        findings.warning("python", f"Python {series} is not among those tested ({', '.join(tested)})", fix)
    facts = {"version": version, "tested": list(tested), "allowed": allowed}
    return facts | {"executable": describe_path(sys.executable or "")}


def examine_platform(findings: Findings) -> dict[str, Any]:
    """Report system, machine and processors."""
    return {"system": platform.platform(), "machine": platform.machine(), "processors": os.cpu_count()}


def examine_dependencies(findings: Findings) -> list[dict[str, Any]]:
    """List the dependencies of moai, and those of its plugins that moai does not ask for or that do not fit."""
    tested = read_tested()
    listed = []
    try:
        listed = read_dependencies(DISTRIBUTION, tested)
    except DependencyError as error:
        problem, _, fix = str(error).rpartition("; ")
        findings.error(DISTRIBUTION, problem, fix)
    known = {dependency.name: dependency.allowed for dependency in listed}
    for name in plugin_distributions():
        try:
            wanted = read_dependencies(name, tested)
        except DependencyError as error:
            problem, _, fix = str(error).rpartition("; ")
            findings.error(name, problem, fix)
            continue
        for dependency in wanted:
            if _adds(dependency, known):
                known[dependency.name] = dependency.allowed
                listed.append(dependency)
    for dependency in listed:
        _judge(dependency, findings)
    _judge_newer([dependency for dependency in listed if dependency.state == "newer"], findings)
    return [vars(dependency) | {"extras": list(dependency.extras)} for dependency in listed]


def _adds(dependency: Dependency, known: dict[str, str]) -> bool:
    """Return whether a plugin's dependency adds to the list; what its extras ask for concerns its author only."""
    if dependency.extras or known.get(dependency.name) == dependency.allowed:
        return False
    unknown = dependency.name not in known and dependency.name != DISTRIBUTION
    return unknown or dependency.state in ("old", "outside")


def _judge(dependency: Dependency, findings: Findings) -> None:
    name, needed_by = dependency.name, dependency.needed_by
    wanted = f'pip install "{name}{dependency.allowed}"'
    core = needed_by == DISTRIBUTION and not dependency.extras
    version = f"{name} {dependency.installed}"
    if dependency.state == "missing" and name == OTHER:
        problem = f"{needed_by} needs a distribution '{OTHER}', which is another project"
        findings.warning(needed_by, problem, f"write {DISTRIBUTION} into the dependencies of {needed_by}")
    elif dependency.state == "missing" and not dependency.extras:
        add = findings.error if core else findings.warning
        add(name, f"{name} is not installed, which {needed_by} needs", wanted)
    elif dependency.state == "unreadable":
        problem = f"the metadata of {name} cannot be read, as after an interrupted installation"
        add = findings.warning if dependency.extras else findings.error
        add(name, problem, f'pip install --force-reinstall "{name}{dependency.allowed}"')
    elif dependency.state in ("old", "outside"):
        what = "older than" if dependency.state == "old" else "outside"
        add = findings.warning if dependency.extras else findings.error
        add(name, f"{version} is {what} what {needed_by} allows ({dependency.allowed})", wanted)


def _judge_newer(newer: list[Dependency], findings: Findings) -> None:
    if newer:
        names = ", ".join(f"{dependency.name} {dependency.installed}" for dependency in newer)
        tested = " ".join(f'"{dependency.name}=={dependency.tested}"' for dependency in newer)
        findings.warning("dependencies", f"newer than tested: {names}", f"if something fails: pip install {tested}")


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _python_range() -> str:
    try:
        return metadata.metadata(DISTRIBUTION).get("Requires-Python") or ""
    except metadata.PackageNotFoundError:  # examine_dependencies says that it is not installed
        return ""


def _contains(allowed: str, version: str) -> bool:
    from packaging.specifiers import SpecifierSet

    return SpecifierSet(allowed).contains(version, prereleases=True)
