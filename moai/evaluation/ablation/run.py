"""Finished ablations as figures: each run's own accuracies, and its paired difference to the base run.

Knows: run folders and what their evaluations left there. Everything is plain JSON types; accuracies are shares.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai.errors import CheckpointError
from moai.evaluation.metrics import exact_match, mcnemar, paired_difference
from moai.evaluation.paired import Record
from moai.evaluation.report.save import read_records, read_report, with_baseline
from moai.training.log import read_log

OPEN = "open"  # the group of all questions that are not yes/no
BASE = "base"


@dataclass(frozen=True)
class Outcome:
    """What became of one training: its run folder and its evaluation's folder, or why there is none."""

    name: str
    changed: dict[str, Any]
    run: Path
    evaluation: Path | None = None
    failure: str | None = None


def summarize_ablations(outcomes: Sequence[Outcome], *, seed: int = 0) -> dict[str, Any]:
    """One row per outcome, the first being the base.

    Args:
        outcomes: the base's must have an evaluation; all evaluations are of the same questions.
        seed: of the intervals.

    Returns:
        ``base``, ``split``, ``data``, ``n``, ``available``, ``images``, ``seed`` and ``rows``: ``name``, ``changed``,
        ``failure``; and without a failure ``on``, ``on-off``, ``on-shuffled`` and ``against_base`` (all questions),
        ``open`` and ``open_against_base`` (None where every question is yes/no, or none is), each with ``value``,
        ``low`` and ``high``; ``parameters`` that were trained and median ``seconds_per_step``.

    Raises:
        CheckpointError: the base has no evaluation, one is damaged, or runs did not answer the same questions.
    """
    base = outcomes[0]
    if base.evaluation is None:
        raise CheckpointError(f"the base '{base.name}' has no evaluation to compare with: {base.failure}")
    report, records = read_report(base.evaluation), read_records(base.evaluation)
    told = {key: report[key] for key in ("split", "data", "n", "available", "images")}
    rows = [_row(outcome, None if outcome is base else records, seed) for outcome in outcomes]
    return {"base": base.name, **told, "seed": seed, "rows": rows}


def trained_parameters(run: Path) -> int:
    """Count the parameters that a finished run trained."""
    from safetensors import safe_open

    with safe_open(run / "moai.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def seconds_per_step(run: Path) -> float | None:
    """Median over the steps, so that those that also measured or saved do not count more; None without a log."""
    seconds = [line["seconds"] for line in read_log(run) if "seconds" in line]
    return statistics.median(seconds) if seconds else None


def _row(outcome: Outcome, base: list[Record] | None, seed: int) -> dict[str, Any]:
    row: dict[str, Any] = {"name": outcome.name, "changed": outcome.changed, "failure": outcome.failure}
    if outcome.evaluation is None:
        return row
    report = read_report(outcome.evaluation)
    overall, open_group = report["groups"]["overall"], report["groups"].get(OPEN)
    row |= {
        "on": overall["accuracy"]["on"],
        "on-off": overall["differences"]["on-off"],
        "on-shuffled": overall["differences"]["on-shuffled"],
        "open": open_group["accuracy"]["on"] if open_group else None,
        "against_base": None,
        "open_against_base": None,
        "parameters": trained_parameters(outcome.run),
        "seconds_per_step": seconds_per_step(outcome.run),
    }
    if base is not None:
        records = with_baseline(read_records(outcome.evaluation), base, "on", BASE)
        row["against_base"] = _against(records, seed)
        if open_group:
            row["open_against_base"] = _against([r for r in records if r.kind != "yes/no"], seed)
    return row


def _against(records: Sequence[Record], seed: int) -> dict[str, float]:
    right = {c: [exact_match(r.predictions[c], r.answer) for r in records] for c in ("on", BASE)}
    value, low, high = paired_difference(right["on"], right[BASE], groups=[r.image_id for r in records], seed=seed)
    return {"value": value, "low": low, "high": high, "mcnemar_p": mcnemar(right["on"], right[BASE])[2]}
