"""Examine plugins and experts: what is installed, its faults, and the modules that an expert lacks."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

from moai.doctor.findings import Findings, describe_error

if TYPE_CHECKING:
    from moai.expert import Expert

GROUP = "moai"  # as in moai.plugins, which imports what may be broken


def plugin_distributions() -> list[str]:
    """List the names of the distributions that have a plugin for moai."""
    return sorted({point.dist.name for point in _entry_points() if point.dist is not None})


def examine_plugins(findings: Findings) -> dict[str, Any]:
    """List plugins with their faults, and experts with the modules that each lacks.

    An expert whose engine is not installed is listed, and needs no fix.
    """
    from moai.plugins import load_registry

    with contextlib.redirect_stdout(sys.stderr):  # a plugin that prints must not end up inside the JSON
        known = load_registry()
    points = {point.name: point for point in _entry_points()}
    problems: dict[str, list[str]] = {}
    for problem in known.problems:
        problems.setdefault(problem.plugin, []).append(problem.reason)
        fix = _fix(points.get(problem.plugin))
        findings.error(problem.plugin, f"plugin '{problem.plugin}': {problem.reason}", fix)
    plugins = [_plugin(name, points.get(name), problems.get(name, [])) for name in sorted({*points, *problems})]
    experts = [_expert(kind, known.origins.get(kind.name), findings) for kind in known.experts.values()]
    return {"restricted_to": os.environ.get("MOAI_PLUGINS"), "installed": plugins, "experts": experts}


def _entry_points() -> list[EntryPoint]:
    # A clone has the metadata of an editable installation twice: in its folder and in the environment.
    return list({(point.name, point.value): point for point in entry_points(group=GROUP)}.values())


def _plugin(name: str, point: EntryPoint | None, problems: list[str]) -> dict[str, Any]:
    from_ = point.dist if point is not None else None
    distribution, version = (from_.name, from_.version) if from_ is not None else (None, None)
    return {"name": name, "distribution": distribution, "version": version, "problems": problems}


def _expert(kind: type[Expert], origin: str | None, findings: Findings) -> dict[str, Any]:
    missing: list[str] = []
    try:
        missing = kind.missing()
    except Exception as error:  # to find "a.b", Python imports "a", which may do anything
        problem = f"expert '{kind.name}' cannot say what it lacks: {describe_error(error)}"
        findings.warning(kind.name, problem, kind.install or "install its engine again")
    return {
        "name": kind.name,
        "role": kind.role,
        "version": kind.version,
        "from": origin,
        "missing": missing,
        "install": kind.install,
    }


def _fix(point: EntryPoint | None) -> str:
    if point is None:
        return "install it, or take it out of the variable MOAI_PLUGINS"
    name = point.dist.name if point.dist is not None else point.module
    return f"update it: pip install --upgrade {name}; or remove it: pip uninstall {name}"
