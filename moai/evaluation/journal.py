"""Write answers as they come, so that an interrupted evaluation goes on where it stopped.

Knows: files of JSON lines. The file's name holds a hash of everything that decides the answers: another run, other
questions, other conditions or other perceptions write into another file, and never mix.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from moai.errors import CheckpointError


class Journal:
    """Append lines to a file in ``folder``, and read those of an interrupted evaluation."""

    def __init__(self, folder: str | Path, arguments: Mapping[str, Any]) -> None:
        """Read what is there already; a last line that was cut short is dropped.

        Args:
            folder: is made where it is missing.
            arguments: JSON types; equal arguments find the same file.

        Raises:
            CheckpointError: the folder cannot be written, or a whole line is no JSON.
        """
        key = hashlib.sha256(json.dumps(arguments, sort_keys=True).encode()).hexdigest()[:12]
        self.path = Path(folder) / f".answers-{key}.jsonl"
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            raw = self.path.read_bytes() if self.path.exists() else b""
            whole = raw[: raw.rfind(b"\n") + 1]
            if len(whole) < len(raw):
                os.truncate(self.path, len(whole))
        except OSError as error:
            raise CheckpointError(f"{self.path.parent} cannot be written: {error}; choose another run folder") from None
        try:
            self.rows: list[dict[str, Any]] = [json.loads(line) for line in whole.splitlines()]
        except ValueError as error:
            raise CheckpointError(f"{self.path} is damaged ({error}); delete it and evaluate again") from None

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        """Add rows and hand them to the operating system."""
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        with open(self.path, "a", encoding="ascii") as file:
            file.write(lines)

    def close(self) -> None:
        """Remove the file: the evaluation is finished and its results are written."""
        self.path.unlink(missing_ok=True)


def digest(items: Iterable[object]) -> str:
    """Hash things in their order, for the arguments."""
    made = hashlib.sha256()
    for item in items:
        made.update(repr(item).encode("utf-8", errors="surrogatepass") + b"\0")
    return made.hexdigest()[:16]
