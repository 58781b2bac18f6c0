"""Keep stdout for results: what plugins, their engines and child processes print goes to stderr.

Knows: file descriptors and streams. A character that stdout cannot encode becomes an escape.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO

from moai.plugin_output import of_plugin


@contextmanager
def own_stdout() -> Iterator[None]:
    """Let only moai's own code write to stdout inside.

    Where stdout is the process's own (file descriptor 1), that descriptor leads to stderr meanwhile, for libraries and
    child processes that write to it past Python.
    """
    given = sys.stdout
    if given is None or isinstance(given, _Stdout):  # no stdout at all, or a command inside a command
        yield
        return
    stream, restore = _moved(given)
    if isinstance(stream, io.TextIOWrapper):
        stream.reconfigure(errors="backslashreplace")
    sys.stdout = _Stdout(stream)  # type: ignore[assignment]
    try:
        yield
    finally:
        sys.stdout = given
        try:
            stream.flush()
        finally:
            restore()


def _moved(given: TextIO) -> tuple[TextIO, Any]:
    """Return a stream on a copy of descriptor 1, which then leads to stderr, and what puts it back."""
    try:
        inside = given.fileno() == 1 and sys.stderr.fileno() == 2
    except (AttributeError, OSError, ValueError):  # a stream in memory, or one that is closed
        inside = False
    if not inside:
        return given, lambda: None
    given.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    stream = os.fdopen(kept, "w", encoding=given.encoding, closefd=True, buffering=1 if given.isatty() else -1)

    def restore() -> None:
        os.dup2(kept, 1)
        with suppress(OSError):  # a pipe whose reader has gone
            stream.close()

    return stream, restore


class _Stdout(io.TextIOBase):
    """Write to stdout, or to stderr what a plugin prints."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def _target(self) -> TextIO:
        return sys.stderr if of_plugin() else self.stream

    @property
    def encoding(self) -> str:  # type: ignore[override]
        return self.stream.encoding

    @property
    def errors(self) -> str | None:  # type: ignore[override]
        return self.stream.errors

    @property
    def buffer(self) -> Any:
        return self._target.buffer

    def write(self, text: str) -> int:
        return self._target.write(text)

    def flush(self) -> None:
        self._target.flush()

    def isatty(self) -> bool:
        return self.stream.isatty()

    def fileno(self) -> int:
        return self._target.fileno()

    def writable(self) -> bool:
        return True
