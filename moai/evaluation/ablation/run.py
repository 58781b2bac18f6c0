"""Train and evaluate ablations one after the other, and summarize the finished ones against their base.

Knows: plans, run folders and what their evaluations left there. Figures are plain JSON types; accuracies are shares.
"""

from __future__ import annotations

import gc
import logging
import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai.errors import CheckpointError, MoaiError
from moai.evaluation.ablation.plan import Ablation
from moai.evaluation.ablation.table import save_ablations
from moai.evaluation.evaluate import dataset_of, evaluate_run, folder_of
from moai.evaluation.metrics import exact_match, mcnemar, paired_difference
from moai.evaluation.paired import Record
from moai.evaluation.report.save import read_records, read_report, with_baseline
from moai.training.log import read_log
from moai.training.progress import Progress
from moai.training.run_state import run_state

log = logging.getLogger("moai")
CONDITIONS = ("on", "off", "shuffled")
OPEN = "open"  # the group of all questions that are not yes/no
BASE = "base"


@dataclass(frozen=True)
class Outcome:
    """Hold the result of one training: its run folder and its evaluation's folder, or why there is none."""

    name: str
    changed: dict[str, Any]
    run: Path
    evaluation: Path | None = None
    failure: str | None = None


def run_ablations(
    planned: Sequence[Ablation],
    root: str | Path,
    *,
    split: str | None = None,
    limit: int | None = 1000,
    seed: int = 0,
    progress: Progress | None = None,
) -> list[Outcome]:
    """Train and evaluate planned ablations as ``moai ablate`` does; the table in ``root`` is written after each.

    What is trained or evaluated already is not done again, and an interrupted training goes on. An ablation that fails
    becomes an outcome with its reason, and the others go on; the base's failure is raised.

    Args:
        planned: of ``plan_ablations``, the base first.
        root: folder of the run folders, each named like its recipe.
        split: that is evaluated; None takes each recipe's validation split.
        limit: number of questions; None evaluates the full split.
        seed: of the draw, the shuffling and the intervals.
        progress: where progress is shown; a bar on a terminal by default.

    Raises:
        RecipeError: a run folder is of another recipe.
        MoaiError: the base failed.
    """
    root, progress, outcomes = Path(root), progress or Progress(), []
    for ablation in planned:
        run_state(ablation.recipe, root / ablation.name)  # before anything is trained
    for number, ablation in enumerate(planned, 1):
        progress.note(f"[{number}/{len(planned)}] {ablation.name}")
        run = root / ablation.name
        try:
            _train(ablation, run, progress)
            evaluation = _evaluate(ablation, run, split, limit, seed, progress)
        except (MoaiError, RuntimeError) as error:  # RuntimeError: torch's, for instance of a loss that is not finite
            if not outcomes:
                raise
            log.warning("%s failed: %s", ablation.name, error)
            outcomes.append(Outcome(ablation.name, ablation.changed, run, failure=str(error)))
        else:
            outcomes.append(Outcome(ablation.name, ablation.changed, run, evaluation))
        gc.collect()  # a model is full of cycles, and the next one needs the room
        save_ablations(summarize_ablations(outcomes, seed=seed), root)
    return outcomes


def summarize_ablations(outcomes: Sequence[Outcome], *, seed: int = 0) -> dict[str, Any]:
    """Summarize outcomes as one row each, the first being the base.

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
    about = {key: report[key] for key in ("split", "data", "n", "available", "images")}
    rows = [_row(outcome, None if outcome is base else records, seed) for outcome in outcomes]
    return {"base": base.name, **about, "seed": seed, "rows": rows}


def trained_parameters(run: Path) -> int:
    """Count the parameters that a finished run trained."""
    from safetensors import safe_open

    with safe_open(run / "moai.safetensors", "pt") as file:
        return sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118


def seconds_per_step(run: Path) -> float | None:
    """Return the median seconds of a step, so that steps that also measured or saved do not count more."""
    seconds = [line["seconds"] for line in read_log(run) if "seconds" in line]
    return statistics.median(seconds) if seconds else None


def _train(ablation: Ablation, run: Path, progress: Progress) -> None:
    state = run_state(ablation.recipe, run)
    if state != "finished":
        from moai.training.trainer import train

        train(ablation.recipe, run, resume=state == "started", progress=progress)


def _evaluate(
    ablation: Ablation, run: Path, split: str | None, limit: int | None, seed: int, progress: Progress
) -> Path:
    """Return the evaluation's folder; an evaluation of these questions that is newer than the run is not repeated."""
    recipe = ablation.recipe
    split = split or recipe.data.validation_split
    available = len(dataset_of(recipe, split))
    count = min(limit or available, available)
    folder = run / folder_of(recipe, None, split, full=count == available)
    if not _is_evaluated(folder, run, count, seed):
        chosen = {"limit": limit, "full": limit is None, "split": split, "conditions": CONDITIONS, "seed": seed}
        evaluate_run(run, **chosen, progress=progress)
    return folder


def _is_evaluated(folder: Path, run: Path, count: int, seed: int) -> bool:
    path = folder / "report.json"
    if not path.is_file() or path.stat().st_mtime < (run / "manifest.json").stat().st_mtime:
        return False
    report = read_report(folder)
    asked = (report["n"], report["seed"], tuple(report["conditions"]))
    return asked == (count, seed, CONDITIONS)


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
    right = {c: [exact_match(r.predictions[c], r.accepted) for r in records] for c in ("on", BASE)}
    value, low, high = paired_difference(right["on"], right[BASE], groups=[r.cluster for r in records], seed=seed)
    return {"value": value, "low": low, "high": high, "mcnemar_p": mcnemar(right["on"], right[BASE])[2]}
