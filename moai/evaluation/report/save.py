"""Write the files of an evaluation into the run folder, and read them again.

Knows: records, summaries, and the modules that write each format.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from moai.assets.replacing import replacing
from moai.errors import CheckpointError
from moai.evaluation.paired import Record
from moai.types import Perception


def save_report(
    summary: Mapping[str, Any],
    records: Sequence[Record],
    folder: str | Path,
    *,
    images: Mapping[str, Any] | None = None,
    words: Mapping[str, str] | None = None,
    perceptions: Mapping[str, Perception] | None = None,
    run: str | Path | None = None,
) -> list[Path]:
    """Write ``report.json``, ``predictions.jsonl``, ``report.png``, ``report.md`` and ``report.html`` into ``folder``.

    Args:
        summary: of ``summarize``; what it holds beside (``gates``) is written along.
        records: the answers.
        folder: is made where it is missing.
        images: image id -> what ``moai.images.read_image`` takes, for the page's examples; without it they have none.
        words: image id -> the perception in words, for the same.
        perceptions: image id -> the perception, which is drawn on the examples.
        run: the run folder, whose facts and curves are on the page.

    Returns:
        The paths, in that order.
    """
    from moai.evaluation.report.chart import draw_chart
    from moai.evaluation.report.markdown import render_markdown
    from moai.evaluation.report.page import render_page

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "report.json", summary)
    lines = [json.dumps(record.to_dict(), ensure_ascii=False) for record in records]
    write_text(folder / "predictions.jsonl", "\n".join(lines) + "\n")
    chart = draw_chart(summary, folder / "report.png")
    write_text(folder / "report.md", render_markdown(summary))
    write_text(folder / "report.html", render_page(summary, records, images or {}, words or {}, perceptions, run))
    return [folder / "report.json", folder / "predictions.jsonl", chart, folder / "report.md", folder / "report.html"]


def read_report(folder: str | Path) -> dict[str, Any]:
    """Read the summary that ``save_report`` wrote.

    Raises:
        CheckpointError: there is none.
    """
    path = Path(folder) / "report.json"
    if not path.is_file():
        raise CheckpointError(f"there is no {path}; `moai eval` on that run writes it")
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(f"{path} is damaged ({error}); run `moai eval` again") from None


def read_records(folder: str | Path) -> list[Record]:
    """Read the records that ``save_report`` wrote.

    Raises:
        CheckpointError: there are none.
    """
    path = Path(folder) / "predictions.jsonl"
    if not path.is_file():
        raise CheckpointError(f"there is no {path}; `moai eval` on that run writes it")
    try:
        return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").split("\n") if line]
    except (json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); run `moai eval` again") from None


def with_baseline(
    records: Sequence[Record], baseline: Sequence[Record], condition: str | None, name: str
) -> list[Record]:
    """Add the baseline's answers under ``condition`` to each record, as a condition called ``name``.

    Args:
        condition: of the baseline; None takes ``on``, or ``off`` where the baseline was not evaluated with it.

    Raises:
        CheckpointError: the two runs did not answer the same questions, or a condition has that name already.
    """
    if condition is None:
        condition = "on" if all("on" in record.predictions for record in baseline) else "off"
    others = {record.id: record for record in baseline if condition in record.predictions}
    same = set(others) == {record.id for record in records} and len(others) == len(baseline)
    if not same or any((others[r.id].question, others[r.id].answer) != (r.question, r.answer) for r in records):
        raise CheckpointError(
            f"the runs did not answer the same questions under '{condition}'; "
            "evaluate both with the same --data, --split, --seed and --limit"
        )
    if any(name in record.predictions for record in records):
        raise CheckpointError(f"'{name}' is a condition already; rename the baseline's folder")
    return [_with(record, others[record.id], condition, name) for record in records]


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON in one step."""
    write_text(path, json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_text(path: Path, text: str) -> None:
    """Write a file in one step, so that no reader finds half of it."""
    with replacing(path) as part:
        part.write_text(text, encoding="utf-8", errors="backslashreplace")  # answers may hold lone surrogates


def _with(record: Record, other: Record, condition: str, name: str) -> Record:
    added = {
        key: {**getattr(record, key), **{name: getattr(other, key)[condition]}}
        for key in ("predictions", "scores", "tokens")
        if condition in getattr(other, key)
    }
    return replace(record, **added)
