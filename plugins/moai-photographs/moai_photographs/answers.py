"""Accept what says the same as a written answer: numbers in digits, places with a preposition, "none" as "nothing".

Knows: English words, and that evaluation drops case, punctuation and articles before it compares.
"""

from __future__ import annotations

from collections.abc import Sequence

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
NONE = ("none", "nothing", "no", "there is none", "there are none", "no one", "nobody")
UPRIGHT = {"top": "upper", "bottom": "lower"}
SIDES = ("left", "right", "top", "bottom", "center")


def accepted(kind: str, answers: Sequence[str]) -> tuple[str, ...]:
    """Return every accepted answer of a question, the written ones first.

    Args:
        kind: of the question.
        answers: as they are written, the first of which is the answer.
    """
    more = [word for answer in answers for word in _alike(kind, answer)]
    return tuple(dict.fromkeys([*answers, *more]))


def _alike(kind: str, answer: str) -> list[str]:
    if kind == "count":
        digits = [str(NUMBERS.index(answer))]
        return [*digits, *NONE] if answer == "zero" else digits
    if kind == "absent":
        return list(NONE)
    if kind == "position" and set(answer.split()) <= set(SIDES):
        return _places(answer)
    return []


def _places(place: str) -> list[str]:
    """Name a place in other words; of two sides also in the other order."""
    names = [place]
    if len(sides := place.split()) == 2:
        first, second = sides
        names += [f"{second} {first}", f"{first} {second} corner", f"{UPRIGHT.get(first, first)} {second}"]
    else:
        names += [f"{place} side", f"{place} half"]
    return [*names, *(f"{word} {name}" for name in names for word in ("on the", "at the", "in the", "to the"))]
