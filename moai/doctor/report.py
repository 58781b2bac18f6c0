"""Report every section in order; a section that fails becomes a finding and does not stop the others.

Knows: the sections. They are imported when they run, since the modules that they need may be what is broken.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from moai.doctor.findings import Finding, Findings, describe_error

SECTIONS = {  # key of the report -> module and function, called with the findings so far
    "moai": "moai.doctor.environment:examine_installation",
    "python": "moai.doctor.environment:examine_python",
    "platform": "moai.doctor.environment:examine_platform",
    "dependencies": "moai.doctor.environment:examine_dependencies",
    "imports": "moai.doctor.imports:examine_imports",
    "cache": "moai.doctor.cache:examine_cache",
    "plugins": "moai.doctor.plugins:examine_plugins",
    "assets": "moai.doctor.cache:examine_assets",
}


@dataclass(frozen=True)
class Report:
    """Hold the sections and the findings, as plain JSON types."""

    sections: dict[str, Any]
    """Key of ``SECTIONS`` -> its facts; None where the section could not be examined."""
    findings: list[Finding]

    @property
    def ok(self) -> bool:
        """Return whether there is no error; warnings do not count."""
        return all(finding.level != "error" for finding in self.findings)

    def to_json(self) -> dict[str, Any]:
        """Return ``ok``, the sections, and the findings as one object."""
        return {"ok": self.ok, **self.sections, "findings": [vars(finding) for finding in self.findings]}


def examine() -> Report:
    """Examine this installation. Nothing is downloaded or changed, and whatever is broken becomes a finding."""
    findings, facts = Findings(), {}
    for key, place in SECTIONS.items():
        module, _, function = place.partition(":")
        try:
            facts[key] = getattr(importlib.import_module(module), function)(findings)
        except Exception as error:  # a broken installation may fail in any way; it is reported like the rest
            facts[key] = None
            problem = f"could not be examined: {describe_error(error)}"
            findings.error(key, problem, "fix the other findings first; if there are none, report this to moai")
    return Report(facts, list(findings))
