"""Questions to look at: those that perception spoilt, and those that it saved.

Knows: records and metrics.
"""

from __future__ import annotations

from collections.abc import Sequence

from moai.evaluation.metrics import exact_match
from moai.evaluation.paired import Record

MOST = 12


def regressions(records: Sequence[Record], most: int = MOST) -> list[Record]:
    """Right with perception off, wrong with it on; the worst first."""
    return _pick(records, "off", "on", most)


def gains(records: Sequence[Record], most: int = MOST) -> list[Record]:
    """Right with perception on, wrong with it off; the best first."""
    return _pick(records, "on", "off", most)


def _pick(records: Sequence[Record], right: str, wrong: str, most: int) -> list[Record]:
    """At most ``most``: first by how far the data set's own metric fell, then by how sure the experts were.

    Each image is shown once before any is shown twice: the same mistake ten times says less than ten mistakes.
    """
    found = [
        r
        for r in records
        if {right, wrong} <= set(r.predictions)
        and exact_match(r.predictions[right], r.answer)
        and not exact_match(r.predictions[wrong], r.answer)
    ]
    found.sort(key=lambda r: (_fall(r, wrong, right), -_sure(r), r.id))
    seen: dict[str, int] = {}
    turns = []
    for record in found:
        seen[record.image_id] = seen.get(record.image_id, 0) + 1
        turns.append(seen[record.image_id])
    return [record for _, record in sorted(zip(turns, found), key=lambda pair: pair[0])][:most]


def _fall(record: Record, wrong: str, right: str) -> float:
    return record.scores.get(wrong, 0.0) - record.scores.get(right, 0.0)


def _sure(record: Record) -> float:
    return record.confidence["mean"] if record.confidence else 0.0
