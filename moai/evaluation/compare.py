"""Compare a run with baseline runs, question by question, from the answers that their evaluations wrote.

Knows: run folders, and the report's files and formats. Nothing is answered again.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from moai.errors import CheckpointError
from moai.evaluation.evaluate import folder_of, recipe_of
from moai.evaluation.report.markdown import render_markdown
from moai.evaluation.report.save import read_records, read_report, with_baseline, write_json, write_text
from moai.evaluation.report.verdict import verdict
from moai.evaluation.summary import summarize


@dataclass(frozen=True)
class Comparison:
    """Hold a comparison: figures with each baseline as one more condition, a sentence for each, the files written."""

    summary: dict[str, Any]
    verdicts: list[str]
    files: list[Path]


def compare_runs(
    run: str | Path,
    baselines: Sequence[str | Path],
    *,
    data: str | None = None,
    split: str | None = None,
    full: bool = False,
    condition: str | None = None,
    seed: int = 0,
) -> Comparison:
    """Compare a run with baselines as ``moai compare`` does, and write the summary beside the run's report.

    Args:
        run: an evaluated run folder; perception on is among its conditions.
        baselines: run folders that were evaluated on the same questions.
        data, split, full: as they were given to ``moai eval``; they name the folder of the evaluation. Where none of
            the runs has it and all have that of the whole split, ``full`` is meant.
        condition: of the baselines; None takes ``on``, or ``off`` where a baseline was not evaluated with it.
        seed: of the intervals.

    Raises:
        CheckpointError: a run has no such evaluation, or the runs did not answer the same questions.
    """
    run, baselines = Path(run), [Path(baseline) for baseline in baselines]
    full = full or _only_full([run, *baselines], data, split)
    folder = run / _folder(run, data, split, full)
    records, report = read_records(folder), read_report(folder)
    if any("on" not in record.predictions for record in records):
        raise CheckpointError(f"{run} was not evaluated with perception on; evaluate it with --perception on,..")
    names = names_of(baselines)
    for baseline, name in zip(baselines, names, strict=True):
        records = with_baseline(records, read_records(baseline / _folder(baseline, data, split, full)), condition, name)
    about = {key: report.get(key, "") for key in ("split", "data", "metric")}
    summary = summarize(records, seed=seed, available=report["available"], name=_name(run), **about)
    summary["baselines"] = names
    path = folder / f"against-{'-and-'.join(name.replace('/', '-') for name in names)}.json"
    write_json(path, summary)
    write_text(path.with_suffix(".md"), render_markdown(summary))
    return Comparison(summary, [verdict(summary, name) for name in names], [path, path.with_suffix(".md")])


def names_of(paths: Sequence[Path]) -> list[str]:
    """Name baselines by their folders, and by their parents as well where two folders have one name.

    Raises:
        CheckpointError: two are the same folder.
    """
    names = [_name(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    longer = ["/".join(path.resolve().parts[-2:]) for path in paths]
    if len(set(longer)) < len(longer):
        raise CheckpointError("two baselines are the same folder; name each once")
    return longer


def _name(path: Path) -> str:
    return path.resolve().name


def _only_full(runs: Sequence[Path], data: str | None, split: str | None) -> bool:
    """Tell whether the runs were evaluated on the whole split and nothing else."""
    drawn, whole = ([(run / _folder(run, data, split, full)).is_dir() for run in runs] for full in (False, True))
    return all(whole) and not any(drawn)


def _folder(run: Path, data: str | None, split: str | None, full: bool) -> str:
    if data is None and split is None:
        return "eval-full" if full else "eval"
    return folder_of(recipe_of(run), data, split, full=full)
