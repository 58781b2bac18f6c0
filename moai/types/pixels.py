"""Make normalised boxes, points and scores of what other programs write: pixels, and numbers of any kind.

Knows: numbers only. What lies partly outside the picture is clipped to it; what is no number, is turned inside out or
lies outside altogether is an error.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, TypeGuard

from moai.errors import ExpertError
from moai.types.findings import Box


def to_number(value: Any, what: str) -> float:
    """Return a finite Python float.

    Args:
        value: a number of Python or numpy.
        what: names it in the message.

    Raises:
        ExpertError: no number, NaN or infinite.
    """
    try:
        number = math.nan if isinstance(value, (bool, str, bytes)) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not math.isfinite(number):
        raise ExpertError(f"{what} must be a finite number, not {short(value)}")
    return number


def to_score(value: Any, what: str = "a score") -> float:
    """Return a score in [0, 1]; rounding errors of a millionth beyond are clipped.

    Raises:
        ExpertError: no number, or another range, such as per cents.
    """
    score = to_number(value, what)
    if not -1e-6 <= score <= 1 + 1e-6:
        raise ExpertError(f"{what} must be in [0, 1], not {short(value)}; divide it by its largest value")
    return min(1.0, max(0.0, score))


def to_box(corners: Any, width: float, height: float, what: str = "a box") -> Box:
    """Return the normalised box of two corners in pixels, clipped to the picture.

    Args:
        corners: ``x0, y0, x1, y1``.
        width, height: of the picture, in the unit of the corners; 1 and 1 where they are normalised already.
        what: names it in the message.

    Raises:
        ExpertError: not four finite numbers, turned inside out, or outside the picture.
    """
    x0, y0, x1, y1 = numbers(corners, 4, what)
    if x0 > x1 or y0 > y1:
        raise ExpertError(f"{what} ends before it begins: {short(list((x0, y0, x1, y1)))}; give x0 <= x1 and y0 <= y1")
    if x1 < 0 or y1 < 0 or x0 > width or y0 > height:
        raise ExpertError(f"{what} lies outside the {width:g} x {height:g} picture: {short(list((x0, y0, x1, y1)))}")
    return _unit(x0, width), _unit(y0, height), _unit(x1, width), _unit(y1, height)


def to_polygon(points: Any, width: float, height: float, what: str = "a polygon") -> tuple[tuple[float, float], ...]:
    """Return the normalised corners of a polygon in pixels, clipped to the picture.

    Raises:
        ExpertError: fewer than three points, or a point that is not two finite numbers.
    """
    if not is_list(points) or len(points) < 3:
        raise ExpertError(f"{what} has at least three points, each [x, y], not {short(points)}")
    pairs = [numbers(point, 2, f"a point of {what}") for point in points]
    return tuple((_unit(x, width), _unit(y, height)) for x, y in pairs)


def numbers(values: Any, count: int, what: str) -> list[float]:
    """Return so many finite numbers, or raise ExpertError."""
    if not is_list(values) or len(values) != count:
        raise ExpertError(f"{what} must be {count} numbers, not {short(values)}")
    return [to_number(value, f"a number of {what}") for value in values]


def is_list(value: Any) -> TypeGuard[Sequence[Any]]:
    """Return whether a value is a list of any kind, an array included, and no text."""
    return hasattr(value, "__len__") and hasattr(value, "__getitem__") and not isinstance(value, (str, bytes, dict))


def short(value: Any) -> str:
    """Write a wrong value for a message, in at most 60 characters."""
    if isinstance(value, Sequence) and not isinstance(value, str) and len(value) > 8:
        return f"{type(value).__name__} of {len(value)}"
    text = repr(value) if not isinstance(value, int) or abs(value) < 10**50 else "a very long whole number"
    return text if len(text) <= 60 else f"{text[:57]}..."


def _unit(value: float, size: float) -> float:
    return min(1.0, max(0.0, value / size))
