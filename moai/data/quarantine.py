"""Leave bad rows out where a recipe tolerates a share of them, and write each down.

Knows: samples. Nothing is left out without a line in the file, and above the share nothing is left out at all.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from moai.assets.replacing import replacing
from moai.data.records import each
from moai.data.samples import Samples, Selected
from moai.errors import DataError
from moai.types import Sample

FILE = "quarantine.jsonl"


class LeftOut(NamedTuple):
    """A row that is left out: where it stands, and why."""

    place: str
    reason: str


def leave_out(
    samples: Samples, tolerate: float, examine: Callable[[Sample, str], Any]
) -> tuple[Samples, list[LeftOut]]:
    """Return the samples without bad ones, and what was left out.

    Args:
        samples: of one split.
        tolerate: largest share of bad rows; 0 reads nothing and leaves bad rows to stop the run where they are read.
        examine: raises :class:`DataError` for a bad sample, given with its place.

    Raises:
        DataError: more rows are bad than that.
    """
    if not tolerate:
        return samples, []
    good, bad = [], []
    for index, sample in enumerate(each(samples)):
        try:
            if isinstance(sample, DataError):
                raise sample
            examine(sample, samples.place(index))
            good.append(index)
        except DataError as error:
            bad.append(LeftOut(samples.place(index), str(error)))
    if len(bad) > tolerate * len(samples):
        raise DataError(
            f"{len(bad):,} of {len(samples):,} rows are bad, more than data.tolerate allows ({tolerate:g}); the first: "
            f"{bad[0].reason}"
        )
    return (Selected(samples, np.array(good, np.int64)) if bad else samples), bad


def write_quarantine(folder: Path, rows: list[LeftOut]) -> Path | None:
    """Write rows that are left out into a run's ``quarantine.jsonl``: file, line and reason of each."""
    if not rows:
        return None
    with replacing(folder / FILE) as part:
        part.write_text("".join(json.dumps(_line(row)) + "\n" for row in rows), encoding="utf-8")
    return folder / FILE


def _line(row: LeftOut) -> dict[str, Any]:
    file, _, line = row.place.rpartition(":")
    where = {"file": file, "line": int(line)} if file and line.isdigit() else {"file": row.place, "line": None}
    return {**where, "reason": row.reason.removeprefix(f"{row.place}: ")}
