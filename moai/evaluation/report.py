"""From answered questions to a summary, a table on the terminal and files in the run folder.

Knows: records and metrics. Accuracies are shares in [0, 1] in the summary and per cent on the terminal and the chart;
differences are in points of a hundred there.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.errors import CheckpointError
from moai.evaluation.metrics import accuracy_interval, exact_match, mcnemar, paired_difference
from moai.evaluation.paired import Record

if TYPE_CHECKING:
    from rich.table import Table


def pairs(conditions: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons a report makes: ``on`` against every other condition, a baseline run among them."""
    return [("on", other) for other in conditions if other != "on"] if "on" in conditions else []


def summarize(
    records: Sequence[Record],
    *,
    split: str,
    seed: int,
    available: int | None = None,
    resamples: int = 2000,
    name: str = "",
) -> dict[str, Any]:
    """Return accuracies and paired differences with 95 % intervals, overall and by answer type, as plain JSON types.

    Args:
        records: at least one, all under the same conditions.
        split: name of the split that the questions come from.
        seed: of the draw and of the shuffling; the bootstrap uses it too.
        available: questions in the whole split; None means that ``records`` are all of them.
        resamples: of the bootstrap.
        name: the run's, shown in titles.

    Returns:
        ``name``, ``n``, ``images``, ``split``, ``available``, ``sampled``, ``seed``, ``conditions``, ``method``,
        ``shuffled`` (how often the other image's perception was equal; None without that condition) and ``groups``:
        ``"overall"``, ``"yes/no"``, ``"open"`` (all but yes/no) and each kind -> ``n``, ``images``, ``accuracy`` and
        ``differences``.

    Raises:
        ValueError: no records, or records under different conditions.
    """
    if not records:
        raise ValueError("a summary needs at least one record")
    conditions = list(records[0].predictions)
    if any(list(r.predictions) != conditions for r in records):
        raise ValueError("all records of a summary must have been answered under the same conditions")
    whole = len(records) if available is None else available
    return {
        "name": name,
        "split": split,
        "n": len(records),
        "available": whole,
        "sampled": len(records) < whole,
        "images": len({r.image_id for r in records}),
        "seed": seed,
        "conditions": conditions,
        "method": f"exact match; 95 % bootstrap intervals, {resamples} resamples of images; exact McNemar test",
        "shuffled": _coincidences(records),
        "groups": {
            title: _group(members, conditions, seed, resamples) for title, members in _split_by_kind(records).items()
        },
    }


def render_table(summary: Mapping[str, Any]) -> Table:
    """Return a table for the terminal: one row per answer type, accuracies and differences with intervals."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(headline(summary)), caption=_caption(summary), box=box.SIMPLE_HEAD, padding=0)
    table.title_justify = table.caption_justify = "left"
    compared = pairs(summary["conditions"])
    table.add_column("type")
    table.add_column("n", justify="right")
    for title in [*summary["conditions"], *(f"{first} - {second}" for first, second in compared)]:
        table.add_column(title, justify="right", min_width=11)
    for title, group in summary["groups"].items():
        cells = [_cell(group["accuracy"][condition]) for condition in summary["conditions"]]
        cells += [_cell(group["differences"][f"{a}-{b}"], signed=True) for a, b in compared]
        table.add_row(escape(title), str(group["n"]), *cells, style="bold" if title == "overall" else "")
    return table


def save_report(summary: Mapping[str, Any], records: Sequence[Record], folder: str | Path) -> list[Path]:
    """Write ``report.json``, ``predictions.jsonl`` and ``report.png`` into ``folder`` and return their paths."""
    from moai.evaluation.chart import draw_chart

    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(record.to_dict(), ensure_ascii=False) for record in records]
    _write(folder / "report.json", json.dumps(summary, indent=2, ensure_ascii=False, allow_nan=False) + "\n")
    _write(folder / "predictions.jsonl", "\n".join(lines) + "\n")
    return [folder / "report.json", folder / "predictions.jsonl", draw_chart(summary, folder / "report.png")]


def read_records(folder: str | Path) -> list[Record]:
    """The records that ``save_report`` wrote.

    Raises:
        CheckpointError: there are none, and what makes them.
    """
    path = Path(folder) / "predictions.jsonl"
    if not path.is_file():
        raise CheckpointError(f"there is no {path}; `moai eval` on that run writes it")
    try:
        return [Record(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line]
    except (json.JSONDecodeError, TypeError) as error:
        raise CheckpointError(f"{path} is damaged ({error}); run `moai eval` again") from None


def with_baseline(records: Sequence[Record], baseline: Sequence[Record], condition: str, name: str) -> list[Record]:
    """Add the baseline's answers under ``condition`` to each record, as a condition called ``name``.

    Raises:
        CheckpointError: the two runs did not answer the same questions.
    """
    answers = {record.id: record.predictions.get(condition) for record in baseline}
    if set(answers) != {record.id for record in records} or None in answers.values():
        raise CheckpointError(
            f"the runs did not answer the same questions under '{condition}'; "
            "evaluate both with the same --split, --seed and --limit"
        )
    return [replace(record, predictions={**record.predictions, name: answers[record.id]}) for record in records]


def headline(summary: Mapping[str, Any]) -> str:
    """Say in one line what was measured: the split, how many of its questions, and whether that is a sample."""
    name = f"{summary['name']}: " if summary["name"] else ""
    if summary["sampled"]:
        size = f"a random sample of {summary['n']:,} of {summary['available']:,} questions, seed {summary['seed']}"
    else:
        size = f"all {summary['n']:,} questions"
    return f"{name}{summary['split']} split, {size}, {summary['images']:,} images"


def _split_by_kind(records: Sequence[Record]) -> dict[str, list[Record]]:
    groups = {
        "overall": list(records),
        "yes/no": [r for r in records if r.kind == "yes/no"],
        "open": [r for r in records if r.kind != "yes/no"],
    }
    for kind in sorted({r.kind for r in records} - set(groups)):
        groups[kind] = [r for r in records if r.kind == kind]
    return {title: members for title, members in groups.items() if members}


def _group(records: Sequence[Record], conditions: Sequence[str], seed: int, resamples: int) -> dict[str, Any]:
    images = [r.image_id for r in records]
    settings = {"groups": images, "seed": seed, "resamples": resamples}
    right = {c: [exact_match(r.predictions[c], r.answer) for r in records] for c in conditions}
    accuracy = {}
    for condition, values in right.items():
        low, high = accuracy_interval(values, **settings)
        accuracy[condition] = {"value": sum(values) / len(values), "low": low, "high": high}
    differences = {}
    for first, second in pairs(conditions):
        value, low, high = paired_difference(right[first], right[second], **settings)
        only_first, only_second, p = mcnemar(right[first], right[second])
        differences[f"{first}-{second}"] = {
            "value": value,
            "low": low,
            "high": high,
            "only_first": only_first,
            "only_second": only_second,
            "mcnemar_p": p,
        }
    return {"n": len(records), "images": len(set(images)), "accuracy": accuracy, "differences": differences}


def _coincidences(records: Sequence[Record]) -> dict[str, float] | None:
    shuffled = [r for r in records if r.donor is not None]
    if not shuffled:
        return None
    return {
        "same_words": sum(bool(r.same_words) for r in shuffled) / len(shuffled),
        "same_objects": sum(bool(r.same_objects) for r in shuffled) / len(shuffled),
    }


def _caption(summary: Mapping[str, Any]) -> str:
    lines = [f"{summary['method']}. Accuracies in per cent, differences in points."]
    for pair, value in summary["groups"]["overall"]["differences"].items():
        first, second = pair.split("-", 1)
        lines.append(
            f"Only right with {first}: {value['only_first']:,}; only with {second}: {value['only_second']:,}; "
            f"{format_p(value['mcnemar_p'])}."
        )
    same = summary["shuffled"]
    if same is not None:
        lines.append(
            f"The shuffled perception named the same objects for {same['same_objects']:.1%} of the questions, "
            f"in the same words for {same['same_words']:.1%}."
        )
    return "\n".join(lines)


def format_p(p: float) -> str:
    """``p = 0.034``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _cell(value: Mapping[str, float], *, signed: bool = False) -> str:
    sign = "+" if signed else ""
    number, low, high = (100 * value[key] for key in ("value", "low", "high"))
    return f"{number:{sign}.1f}\n[dim]{low:.1f}..{high:.1f}[/dim]"  # two lines fit into 80 columns


def _write(path: Path, text: str) -> None:
    aside = path.with_name(f".{path.name}.part")
    aside.write_text(text, encoding="utf-8")
    os.replace(aside, path)
