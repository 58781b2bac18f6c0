"""Render a summary as Markdown: the same tables as on the terminal, to paste into a README or an issue.

Knows: the summary's layout. Names of groups come from data sets, so nothing in them is taken for Markdown or HTML.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from moai.evaluation.report.table import format_p, metric_line, token_lines
from moai.evaluation.report.verdict import verdict
from moai.evaluation.summary import headline, pairs

_SIGNS = re.compile(r"([\\`*_\[\]|~$])")


def render_markdown(summary: Mapping[str, Any]) -> str:
    """Render tables of accuracies and of paired differences, overall and by group."""
    conditions, groups = summary["conditions"], summary["groups"]
    parts = [f"# {escape(headline(summary))}", _table(["type", "n", *conditions], _accuracies(groups, conditions))]
    compared = pairs(conditions)
    if compared:
        titles = ["type", *(f"on - {other}" for _, other in compared)]
        parts.append("Paired differences in points, with 95 % intervals and McNemar's exact p:")
        parts.append(_table(titles, _differences(groups, compared)))
    same = summary["shuffled"]
    parts.append(f"{escape(summary['method'])}. Accuracies in per cent.")
    parts += [escape(metric_line(summary))] if summary.get("metric") else []
    parts += [escape(line) for line in token_lines(summary)]
    if same:
        parts.append(f"The shuffled perception named the same objects for {same['same_objects']:.1%} of the questions.")
    parts += [escape(verdict(summary, name)) for name in summary.get("baselines", ())]
    return "\n\n".join(parts) + "\n"


def escape(text: str) -> str:
    """Escape one line of text: no markup, no control characters."""
    plain = "".join(char if char.isprintable() else " " for char in text)
    return _SIGNS.sub(r"\\\1", html.escape(plain, quote=False))


def _accuracies(groups: Mapping[str, Any], conditions: list[str]) -> list[list[str]]:
    return [
        [title, f"{group['n']:,}", *(_interval(group["accuracy"][c], "") for c in conditions)]
        for title, group in groups.items()
    ]


def _differences(groups: Mapping[str, Any], compared: list[tuple[str, str]]) -> list[list[str]]:
    rows = []
    for title, group in groups.items():
        found = [group["differences"][f"{a}-{b}"] for a, b in compared]
        rows.append([title, *(f"{_interval(d, '+')}, {format_p(d['mcnemar_p'])}" for d in found)])
    return rows


def _interval(value: Mapping[str, float], sign: str) -> str:
    number, low, high = (f"{100 * value[key]:{sign}.1f}" for key in ("value", "low", "high"))
    return f"{number} ({low} to {high})"


def _table(titles: list[str], rows: list[list[str]]) -> str:
    lines = [[escape(title) for title in titles], ["---"] * len(titles)]
    lines += [[escape(title), *numbers] for title, *numbers in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
