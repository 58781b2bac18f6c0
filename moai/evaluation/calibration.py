"""Calibrate perception: its gain in accuracy by the experts' scores in the image.

Knows: records and metrics.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from moai.evaluation.metrics import exact_match, paired_difference
from moai.evaluation.paired import Record

BINS = 5
BY = ("mean", "least")  # of the scores of all findings in the image


def calibrate(records: Sequence[Record], *, seed: int = 0, resamples: int = 2000) -> dict[str, Any] | None:
    """Measure accuracy with perception on minus off, per bin of the experts' scores.

    Bins hold about equally many questions; questions with the same score share a bin, so there may be fewer than
    ``BINS``. Images without findings have no score and are left out; ``without_findings`` counts their questions.

    Returns:
        ``without_findings``, and for ``mean`` and ``least`` a list of bins: ``from`` and ``to`` (lowest and highest
        score inside), ``n``, ``images``, ``value``, ``low``, ``high``; None without both conditions, or when no
        record has a score.
    """
    paired = [r for r in records if "on" in r.predictions and "off" in r.predictions]
    scored = [r for r in paired if r.confidence]
    if not scored:
        return None
    found: dict[str, Any] = {"without_findings": len(paired) - len(scored)}
    for by in BY:
        found[by] = [_bin(members, by, seed, resamples) for members in _bins(scored, by)]
    return found


def _bins(records: Sequence[Record], by: str) -> list[list[Record]]:
    ordered = sorted(records, key=lambda r: r.confidence[by])
    bins: list[list[Record]] = [[]]
    for done, record in enumerate(ordered):
        full = len(bins) < BINS and done >= len(ordered) * len(bins) / BINS
        if full and record.confidence[by] > bins[-1][-1].confidence[by]:
            bins.append([])
        bins[-1].append(record)
    return bins


def _bin(records: Sequence[Record], by: str, seed: int, resamples: int) -> dict[str, Any]:
    on, off = ([exact_match(r.predictions[c], r.accepted) for r in records] for c in ("on", "off"))
    clusters = [r.cluster for r in records]
    value, low, high = paired_difference(on, off, groups=clusters, seed=seed, resamples=resamples)
    return {
        "from": records[0].confidence[by],
        "to": records[-1].confidence[by],
        "n": len(records),
        "images": len({r.image_id for r in records if r.image_id}),
        "value": value,
        "low": low,
        "high": high,
    }
