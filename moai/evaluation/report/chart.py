"""Draw the evaluation as a picture: bars of accuracy per answer type, one colour per condition, with intervals.

Knows: the summary's layout and matplotlib.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.assets.replacing import replacing
from moai.evaluation.report.palette import colour_of, name_of
from moai.evaluation.summary import headline
from moai.plot_style import FAINT, INK, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def draw_chart(summary: Mapping[str, Any], path: str | Path) -> Path:
    """Draw ``summary`` into the PNG file ``path`` and return the path."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    path = Path(path)
    groups = summary["groups"]
    width = max(7.0, 2.0 + max(1.5, 0.42 * len(summary["conditions"])) * len(groups))
    figure = Figure(figsize=(width, 5.2), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # no window system and no global state, so it is safe in threads
    axes = figure.subplots()
    _draw_bars(axes, groups, summary["conditions"])
    _style_axes(axes, groups)
    _title(axes, summary, columns=int(width * 11))
    columns = min(len(summary["conditions"]), 4)
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.13), ncols=columns, frameon=False, fontsize=10)
    with replacing(path) as part:
        figure.savefig(part, format="png")
    return path


def _draw_bars(axes: Axes, groups: Mapping[str, Any], conditions: list[str]) -> None:
    width = 0.8 / len(conditions)
    for place, condition in enumerate(conditions):
        for row, group in enumerate(groups.values()):
            value, low, high = (100 * group["accuracy"][condition][key] for key in ("value", "low", "high"))
            x = row + (place - (len(conditions) - 1) / 2) * width
            label = drawn(name_of(condition)) if row == 0 else None
            axes.bar(x, value, width * 0.94, color=colour_of(condition, place), label=label, zorder=2)
            error = [[max(0.0, value - low)], [max(0.0, high - value)]]
            axes.errorbar(x, value, yerr=error, color=INK, elinewidth=1.1, capsize=2.5, capthick=1.1, zorder=3)
            size = 9 if len(conditions) <= 4 else 6.5
            axes.text(x, max(value, high) + 1.5, f"{value:.1f}", ha="center", va="bottom", fontsize=size, color=INK)


def _style_axes(axes: Axes, groups: Mapping[str, Any]) -> None:
    labels = [f"{drawn(title)}\nn = {group['n']:,}" for title, group in groups.items()]
    axes.set_xticks(range(len(groups)), labels, fontsize=10, color=INK)
    axes.set_xlim(-0.55, len(groups) - 0.45)
    axes.set_ylim(0, 110)
    axes.set_yticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)], fontsize=9, color=FAINT)
    axes.set_ylabel("answered right", fontsize=10, color=FAINT)
    axes.grid(axis="y", color="#e6e8eb", linewidth=0.8, zorder=0)
    axes.tick_params(length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom"].set_color("#b8bdc4")
    if len(groups) > 1:
        axes.axvline(0.5, color="#d4d8dd", linewidth=0.8, linestyle=(0, (4, 4)), zorder=1)


def _title(axes: Axes, summary: Mapping[str, Any], columns: int) -> None:
    lines = textwrap.wrap(drawn(headline(summary)), columns)
    differences = summary["groups"]["overall"]["differences"]
    gains = []
    for pair, difference in differences.items():
        value, low, high = (f"{100 * difference[key]:+.1f}" for key in ("value", "low", "high"))
        gains.append(f"on - {drawn(pair.split('-', 1)[1])}: {value} points ({low} to {high})")
    below = [*lines, *textwrap.wrap("; ".join(gains), columns), "Bars: 95 % intervals, questions clustered by image"]
    axes.set_title(
        "Accuracy by answer type", loc="left", fontsize=13, fontweight="bold", color=INK, pad=14 * len(below) + 8
    )
    axes.text(
        0, 1.02, "\n".join(below), transform=axes.transAxes, fontsize=9, color=FAINT, va="bottom", linespacing=1.35
    )
