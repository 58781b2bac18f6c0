"""Collect findings: a fault of an installation, and the sentence that names its fix."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """Describe one fault."""

    level: Literal["error", "warning"]
    """An error must be fixed; a warning may be the reason when something fails."""
    about: str
    """A distribution, a plugin, or a part of the report: ``torch``, ``python``, ``cache``."""
    problem: str
    fix: str


class Findings(list[Finding]):
    """Collect the findings so far."""

    def error(self, about: str, problem: str, fix: str) -> None:
        """Add a fault that must be fixed."""
        self.append(Finding("error", about, problem, fix))

    def warning(self, about: str, problem: str, fix: str) -> None:
        """Add a condition that may be the reason when something fails."""
        self.append(Finding("warning", about, problem, fix))


def describe_error(error: BaseException) -> str:
    """Describe an error as ``ImportError: no module``, on one line of at most 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def describe_path(path: str | Path) -> str:
    """Describe a path as text that can be printed anywhere: bytes that are no UTF-8 become escapes."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
