"""Sort the lines of text in a picture into reading order: by rows, and along each row.

Knows: polygons of text lines. For experts of the role ``ocr``. Languages written from right to left, and columns of a
page, are sorted by the same rule.
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.types import TextLine


def reading_order(lines: Sequence[TextLine]) -> list[TextLine]:
    """Sort from top to bottom, and from left to right where lines stand in one row.

    Args:
        lines: each with a polygon of at least one point.

    Returns:
        The same lines. Two lines stand in one row when the middle of the lower one lies within the height of the
        first line of that row.
    """
    rows: list[list[TextLine]] = []
    for line in sorted(lines, key=lambda item: _span(item, 1)):
        top, bottom = _span(rows[-1][0], 1) if rows else (0.0, 0.0)
        middle = sum(_span(line, 1)) / 2
        if rows and top <= middle <= bottom:
            rows[-1].append(line)
        else:
            rows.append([line])
    return [line for row in rows for line in sorted(row, key=lambda item: _span(item, 0))]


def _span(line: TextLine, axis: int) -> tuple[float, float]:
    values = [point[axis] for point in line.polygon]
    return min(values), max(values)
