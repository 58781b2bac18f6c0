"""Progress of long work: a bar on a terminal, plain lines anywhere else; always on stderr.

Knows: rich. Nothing else in ``training`` prints.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

LINES = 20  # plain lines per bar when stderr is not a terminal


class Progress:
    """Shows bars; subclass it or pass another object with ``bar`` to show progress elsewhere."""

    shown = True  # switched off in all but the first of several processes

    def note(self, text: str) -> None:
        """Say something once."""
        if self.shown:
            print(text, file=sys.stderr, flush=True)

    @contextmanager
    def bar(self, description: str, total: int, done: int = 0) -> Iterator[Callable[..., None]]:
        """Yield ``advance(count, note="")``."""
        if not self.shown:
            yield lambda count, note="": None
            return
        if not sys.stderr.isatty():
            yield _plain_lines(description, total, done)
            return
        from rich import progress as bars
        from rich.console import Console

        # rich would send what is printed to stdout meanwhile to the bar's console, which is stderr
        columns = (bars.TextColumn("{task.description}"), bars.BarColumn(), bars.MofNCompleteColumn())
        times = (bars.TimeElapsedColumn(), bars.TimeRemainingColumn(), bars.TextColumn("{task.fields[note]}"))
        with bars.Progress(*columns, *times, console=Console(stderr=True), redirect_stdout=False) as shown:
            task = shown.add_task(description, total=total, completed=done, note="")
            yield lambda count, note="": shown.update(task, advance=count, note=note)


def _plain_lines(description: str, total: int, done: int) -> Callable[..., None]:
    start, state = time.monotonic(), {"done": done, "line": LINES * done // max(total, 1)}

    def advance(count: int, note: str = "") -> None:
        state["done"] += count
        line = LINES * state["done"] // max(total, 1)
        if line > state["line"]:
            state["line"] = line
            seconds = time.monotonic() - start
            print(
                f"{description}: {state['done']}/{total}, {seconds:.0f} s  {note}".rstrip(), file=sys.stderr, flush=True
            )

    return advance
