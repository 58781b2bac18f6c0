"""Pack conversations without images into few rows, between whose documents no attention passes.

Knows: encoded conversations. The model takes ``document_ids`` with them (``moai/model/packing.py``).
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.model.processor.prompts import IGNORED, Encoded


def pack(lengths: Sequence[int | None], capacity: int) -> list[list[int]]:
    """Group conversations into rows: each goes into the first row that has room for it.

    Args:
        lengths: tokens of each; None for one that stays alone.
        capacity: tokens that a row holds.

    Returns:
        Indices of the conversations of each row; rows with one that stays alone are like any other.
    """
    groups: list[list[int]] = []
    room: list[int] = []
    for index, length in enumerate(lengths):
        fits = None if length is None else next((n for n, free in enumerate(room) if length <= free), None)
        if fits is None:
            groups.append([index])
            room.append(0 if length is None else capacity - length)
        else:
            groups[fits].append(index)
            room[fits] -= length
    return groups


def join(documents: Sequence[Encoded]) -> Encoded:
    """Put encoded conversations one after another; no document's first token is learnt from the one before it."""
    labels = ((IGNORED, *one.labels[1:]) for one in documents)
    return Encoded(
        tuple(token for one in documents for token in one.ids),
        tuple(label for one in labels for label in one),
        tuple(mixed for one in documents for mixed in one.prompt),
    )
