"""Check a row's turns, and put its images at their places.

Knows: turns. A text becomes an image's place only where a format says so; it never becomes a control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moai.errors import DataError
from moai.types import IMAGE, Turn
from moai.types.conversation import Content

PLACES = "images and their places do not match"


def split_at(text: Any, marker: str | None) -> Content:
    """Split a text at a marker such as ``<image>``, each of which becomes an image's place.

    One line break beside a place is left out, as the layout of LLaVA writes it.

    Raises:
        DataError: not a text.
    """
    if not isinstance(text, str):
        raise DataError(f"a turn's text is {type(text).__name__}; write a string")
    if not marker or marker not in text:
        return (text,)
    first, *rest = text.split(marker)
    content: list[Any] = [first.removesuffix("\n")]
    for piece in rest:
        content += [IMAGE, piece.removeprefix("\n")]
    return tuple(part for part in content if part != "")


def place_images(turns: Sequence[Turn], count: int, policy: str) -> list[Turn]:
    """Return turns with one mark per image; where there is none, images go before the first user turn.

    Raises:
        DataError: another number of marks than of images, or none with the policy ``"refuse"``.
    """
    marks = sum(turn.images for turn in turns)
    if marks == count:
        return list(turns)
    if marks:
        said = f"{_count(marks, 'image place')} for {_count(count, 'image')}; write one place for each image"
        raise DataError(said, PLACES)
    if policy == "refuse":
        said = f"{_count(count, 'image')} without a place in the text; write it, or set placeholders: insert"
        raise DataError(said, PLACES)
    at = next((n for n, turn in enumerate(turns) if turn.role in ("user", "text")), None)
    if at is None:
        raise DataError("images, and no user turn to put them into; add one")
    with_marks = Turn(turns[at].role, (*(IMAGE for _ in range(count)), *turns[at].content))
    return [*turns[:at], with_marks, *turns[at + 1 :]]


def check_turns(turns: Sequence[Turn]) -> None:
    """Refuse turns that nothing can be learnt from.

    Raises:
        DataError: no turn, an empty one, an order other than user and assistant in turn after at most one system turn,
            or no answer at the end.
    """
    if not turns:
        raise DataError("no turns; write a question and an answer")
    for number, turn in enumerate(turns, start=1):
        if not turn.images and not turn.text.strip():
            what = "answer" if turn.role == "assistant" else "text"
            raise DataError(f"turn {number} has an empty {what}; write one, or leave the row out", f"empty {what}")
    if turns[0].role == "text":
        return
    roles = [turn.role for turn in turns]
    spoken = roles[1:] if roles[0] == "system" else roles
    wanted = ["user", "assistant"] * ((len(spoken) + 1) // 2)
    if spoken != wanted or not spoken:
        said = f"turns out of order ({', '.join(roles)}); user and assistant alternate, and an answer ends them"
        raise DataError(said, "turns out of order")


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
