"""Findings: what is wrong with an installation, and the sentence that mends it."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True)
class Finding:
    """One thing that is wrong."""

    level: Literal["error", "warning"]
    """An error must be mended; a warning may be the reason when something fails."""
    about: str
    """A distribution, a plugin, or a part of the report: ``torch``, ``python``, ``cache``."""
    problem: str
    fix: str


class Findings(list[Finding]):
    """The findings so far."""

    def error(self, about: str, problem: str, fix: str) -> None:
        """Add what must be mended."""
        self.append(Finding("error", about, problem, fix))

    def warning(self, about: str, problem: str, fix: str) -> None:
        """Add what may be the reason when something fails."""
        self.append(Finding("warning", about, problem, fix))


def describe_error(error: BaseException) -> str:
    """``ImportError: no module``, on one line and not longer than 300 characters."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]


def describe_path(path: str | Path) -> str:
    """A path as text: bytes of a file name that are no UTF-8 become escapes, so that it can be printed anywhere."""
    return os.fsencode(path).decode("utf-8", errors="backslashreplace")
