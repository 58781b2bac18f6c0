"""Print results of the commands: tables, perceptions, progress. Results go to stdout, progress and warnings to stderr.

Knows: rich and perceptions. Text found in an image is untrusted, so it reaches the terminal without
control characters and is never taken for markup.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

    from moai.types import Perception

PIPE_WIDTH = 160  # columns when the output is not a terminal, so that nothing useful is cut


def console(stderr: bool = False) -> Console:
    """A console on the current stdout or stderr."""
    from rich.console import Console

    stream = sys.stderr if stderr else sys.stdout
    return Console(file=stream, width=None if stream.isatty() else PIPE_WIDTH, highlight=False)


def loading(what: str) -> None:
    """Print on stderr what is loaded, before the import of torch takes seconds."""
    click.echo(f"loading {plain(what)}", err=True)


def warn(message: str) -> None:
    """Print ``warning: ...`` on stderr."""
    click.echo(f"warning: {plain(message)}", err=True)


def plain(text: str) -> str:
    """Text without control, escape and direction-changing characters: safe to print."""
    return "".join(char if char.isprintable() else " " for char in str(text))


def encodable(text: str) -> str:
    """Text whose characters stdout can encode; the others become escapes, as ``\\xe9`` for an accent in ASCII."""
    encoding = getattr(sys.stdout, "encoding", None) or "ascii"
    return text.encode(encoding, errors="backslashreplace").decode(encoding)


def table(*columns: str) -> Table:
    """An empty table in the house style; ``add_row`` takes what :func:`cell` returns."""
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold")
    return made


def cell(text: object) -> Any:
    """A table cell that shows ``text`` as it is, never as markup."""
    from rich.text import Text

    return Text(plain(str(text)))


def print_findings(perception: Perception, about: str = "") -> None:
    """Print ``about`` and the experts that answered, then a table of all findings: type, description, score, box."""
    click.echo(f"{plain(about)}perceived by {sources(perception)}")  # not the table's title, which is cut to its width
    made = table("found", "what", "score", "box")
    for kind, what, score, box in _rows(perception):
        made.add_row(kind, cell(what), "" if score is None else f"{score:.2f}", _box(box))
    if not made.row_count:
        made.add_row("nothing", "", "", "")
    console().print(made)


def _rows(perception: Perception) -> Iterator[tuple[str, str, float | None, Any]]:
    from moai.types import describe

    for segment in perception.segments:
        yield "segment", describe(segment), segment.score, segment.box
    for detection in perception.detections:
        yield "object", detection.label, detection.score, detection.box
    for relation in perception.relations:
        yield "relation", f"{relation.subject} {relation.predicate} {relation.object}", relation.score, None
    for line in perception.texts:
        yield "text", line.text, line.score, _bounds(line.polygon)
    for role, lines in perception.notes.items():
        for text in lines:
            yield role, text, None, None


def _bounds(polygon: tuple[tuple[float, float], ...]) -> Any:
    if not polygon:
        return None
    across, down = zip(*polygon, strict=True)
    return (min(across), min(down), max(across), max(down))


def _box(box: Any) -> str:
    return "" if box is None else "[" + ", ".join(f"{value:.2f}" for value in box) + "]"


def sources(perception: Perception) -> str:
    """List the experts that answered: ``shapes 1, geometry 1 (from the cache)``."""
    listed = [f"{s.expert} {s.version}{' (from the cache)' if s.cached else ''}" for s in perception.sources]
    return ", ".join(listed) or "no expert"


def failures(perception: Perception, about: str) -> int:
    """Warn of each expert that failed, and return how many there were."""
    for failure in perception.failures:
        warn(f"{about}: expert '{failure.expert}' gave nothing: {failure.reason}")
    return len(perception.failures)


def minutes(seconds: float) -> str:
    """``4.2 s`` or ``3 min 20 s``."""
    whole = round(seconds)
    return f"{seconds:.1f} s" if seconds < 60 else f"{whole // 60} min {whole % 60:02d} s"


def progress(description: str, total: int) -> AbstractContextManager[Callable[..., None]]:
    """Yields ``advance(n)``: the bar or the plain lines that training shows, on stderr."""
    from moai.training.progress import Progress

    return Progress().bar(description, total)
