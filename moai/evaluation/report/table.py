"""Render a summary as a table for the terminal.

Knows: the summary's layout and rich. Up to three conditions stand side by side, more below one another.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from moai.evaluation.summary import headline, pairs

if TYPE_CHECKING:
    from rich.table import Table

SIDE_BY_SIDE = 3  # conditions that fit into 80 columns with their differences


def render_table(summary: Mapping[str, Any]) -> Table:
    """Render accuracies and differences with intervals, one row per group, or per group and condition."""
    from rich import box
    from rich.markup import escape
    from rich.table import Table

    table = Table(title=escape(_plain(headline(summary))), caption=escape(_caption(summary)), box=box.SIMPLE_HEAD)
    table.padding, table.min_width = 0, 72  # room for title and caption where there is one condition only
    table.title_justify = table.caption_justify = "left"
    (_beside if len(summary["conditions"]) <= SIDE_BY_SIDE else _below)(table, summary, lambda t: escape(_plain(t)))
    return table


def format_p(p: float) -> str:
    """Format a p value: ``p = 0.034``, or ``p < 0.001``."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def _beside(table: Table, summary: Mapping[str, Any], safe) -> None:
    compared = pairs(summary["conditions"])
    table.add_column("type")
    table.add_column("n", justify="right")
    for title in [*summary["conditions"], *(f"{first} - {second}" for first, second in compared)]:
        table.add_column(safe(title), justify="right", min_width=11)
    for title, group in summary["groups"].items():
        cells = [_cell(group["accuracy"][condition]) for condition in summary["conditions"]]
        cells += [_cell(group["differences"][f"{a}-{b}"], signed=True) for a, b in compared]
        table.add_row(safe(title), str(group["n"]), *cells, style="bold" if title == "overall" else "")


def _below(table: Table, summary: Mapping[str, Any], safe) -> None:
    table.add_column("type")
    for title in ("n", "condition", "accuracy", "on - it", "McNemar"):
        table.add_column(title, justify="left" if title == "condition" else "right")
    table.padding = (0, 1)
    for title, group in summary["groups"].items():
        for place, condition in enumerate(summary["conditions"]):
            difference = group["differences"].get(f"on-{condition}")
            cells = [_line(group["accuracy"][condition])]
            cells += [_line(difference, signed=True), format_p(difference["mcnemar_p"])] if difference else ["", ""]
            head = ("", "") if place else (safe(title), f"{group['n']:,}")
            table.add_row(*head, safe(condition), *cells, style="bold" if title == "overall" else "")
        table.add_section()


def _caption(summary: Mapping[str, Any]) -> str:
    lines = [f"{summary['method']}. Accuracies in per cent, differences in points."]
    if len(summary["conditions"]) <= SIDE_BY_SIDE:
        lines += [_counts(pair, value) for pair, value in summary["groups"]["overall"]["differences"].items()]
    lines += [metric_line(summary)] if summary.get("metric") else []
    lines += token_lines(summary)
    same = summary["shuffled"]
    if same is not None:
        lines.append(
            f"The shuffled perception named the same objects for {same['same_objects']:.1%} of the questions, "
            f"in the same words for {same['same_words']:.1%}."
        )
    return _plain("\n".join(lines))


def metric_line(summary: Mapping[str, Any]) -> str:
    """Describe the data set's own metric, overall, in one sentence."""
    score = summary["groups"]["overall"].get("score", {})
    values = [f"{c} {v['value']:.3f} ({v['low']:.3f} to {v['high']:.3f})" for c, v in score.items()]
    return f"{summary['metric']}: {', '.join(values)}."


def token_lines(summary: Mapping[str, Any]) -> list[str]:
    """Describe the tokens of a question; conditions with equal figures share a sentence."""
    conditions: dict[str, list[str]] = {}
    for condition, cost in summary.get("tokens", {}).items():
        text = f"{cost['prompt']:.1f} prompt tokens"
        if cost["words"] or cost["auxiliary"]:
            text += f" and {cost['auxiliary']:.1f} auxiliary, condensed from {cost['words']:.1f} of words"
        conditions.setdefault(text, []).append(condition)
    return [f"Read per question ({', '.join(names)}): {text}." for text, names in conditions.items()]


def _counts(pair: str, value: Mapping[str, Any]) -> str:
    first, second = pair.split("-", 1)
    return (
        f"Only right with {first}: {value['only_first']:,}; only with {second}: {value['only_second']:,}; "
        f"{format_p(value['mcnemar_p'])}."
    )


def _cell(value: Mapping[str, float], *, signed: bool = False) -> str:
    number, low, high = (100 * value[key] for key in ("value", "low", "high"))
    return f"{number:{'+' if signed else ''}.1f}\n[dim]{low:.1f}..{high:.1f}[/dim]"  # two lines fit into 80 columns


def _line(value: Mapping[str, float], *, signed: bool = False) -> str:
    number, low, high = (100 * value[key] for key in ("value", "low", "high"))
    return f"{number:{'+' if signed else ''}.1f} [dim]{low:.1f}..{high:.1f}[/dim]"


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() or char == "\n" else " " for char in text)
