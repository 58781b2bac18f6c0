"""Draw the page's plots, as SVG in data URIs: narrow enough for a phone, sharp on paper.

Knows: the summary's layout and matplotlib.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moai.evaluation.conditions import WITHOUT
from moai.evaluation.gates import BINS, STREAMS
from moai.evaluation.report.palette import colour_of, name_of
from moai.plot_style import FAINT, INK, bare, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

WIDTH = 5.2  # inches: 374 points, the width of a phone
_LOSS = "#b3423a"
_TOKENS = {"image": "image tokens", "language": "question tokens"}
_MODULES = {"auxiliary": "#0b6e8f", "language": "#9467a8", "image": "#e39b4c"}


def draw_all(summary: Mapping[str, Any]) -> dict[str, str]:
    """Return name -> data URI, for those that the summary has figures of.

    The names are ``accuracy``, ``differences``, ``left_out``, ``gates`` and ``calibration``.
    """
    drawn = {"accuracy": _accuracy(summary)}
    differences = summary["groups"]["overall"]["differences"]
    experts = {pair: d for pair, d in differences.items() if pair.startswith(f"on-{WITHOUT}")}
    others = {pair: d for pair, d in differences.items() if pair not in experts}
    if others:
        drawn["differences"] = _intervals([(f"on - {_other(pair)}", d) for pair, d in others.items()])
    if experts:
        drawn["left_out"] = _intervals([(_other(pair).removeprefix("without "), d) for pair, d in experts.items()])
    if summary.get("gates"):
        drawn["gates"] = _gates(summary["gates"]["layers"])
    if summary.get("calibration"):
        drawn["calibration"] = _calibration(summary["calibration"])
    return {name: _uri(figure) for name, figure in drawn.items()}


def _figure(height: float) -> Figure:
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDTH, height), facecolor="white", layout="constrained")
    FigureCanvasSVG(figure)
    return figure


def _uri(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None}, transparent=True)  # dark pages invert it
    return "data:image/svg+xml;base64," + base64.b64encode(buffer.getvalue()).decode()


def _accuracy(summary: Mapping[str, Any]) -> Figure:
    conditions, groups = summary["conditions"], summary["groups"]
    bar, gap = 0.17, 0.22  # inches
    block = bar * len(conditions) + gap
    figure = _figure(0.55 + 0.16 * len(conditions) + block * len(groups))
    axes = figure.subplots()
    for row, group in enumerate(groups.values()):
        for place, condition in enumerate(conditions):
            value, low, high = _points(group["accuracy"][condition])
            y = row * block + place * bar
            label = drawn(name_of(condition)) if row == 0 else None
            axes.barh(y, value, bar * 0.92, color=colour_of(condition, place), label=label, zorder=2)
            _error_bar(axes, value, low, high, y)
            axes.text(max(value, high) + 1.2, y, f"{value:.1f}", va="center", fontsize=7, color=INK)
    middle = bar * (len(conditions) - 1) / 2
    labels = [f"{drawn(title)}\nn = {group['n']:,}" for title, group in groups.items()]
    axes.set_yticks([row * block + middle for row in range(len(groups))], labels, fontsize=8, color=INK)
    axes.set_ylim(len(groups) * block - bar, -bar)
    axes.set_xlim(0, 108)
    axes.set_xticks(range(0, 101, 20), [f"{tick} %" for tick in range(0, 101, 20)], fontsize=8, color=FAINT)
    bare(axes, "x")
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=8)
    return figure


def _intervals(rows: Sequence[tuple[str, Mapping[str, float]]]) -> Figure:
    figure = _figure(0.6 + 0.34 * len(rows))
    axes = figure.subplots()
    for y, (_, difference) in enumerate(rows):
        value, low, high = _points(difference)
        colour = colour_of("on", 0) if value >= 0 else _LOSS
        axes.barh(y, value, 0.5, color=colour, alpha=1 if low > 0 or high < 0 else 0.45, zorder=2)
        _error_bar(axes, value, low, high, y)
    labels = [f"{drawn(title)}\n{100 * d['value']:+.1f} points" for title, d in rows]
    axes.set_yticks(range(len(rows)), labels, fontsize=8, color=INK)
    axes.set_ylim(len(rows) - 0.5, -0.5)
    axes.axvline(0, color=INK, linewidth=0.9, zorder=4)
    axes.margins(x=0.08)
    axes.tick_params(axis="x", labelsize=8, labelcolor=FAINT)
    axes.set_xlabel("points of accuracy", fontsize=8, color=FAINT)
    bare(axes, "x")
    return figure


def _gates(layers: Sequence[Mapping[str, Any]]) -> Figure:
    figure = _figure(0.75 + 0.85 * len(layers))
    streams = [stream for stream in STREAMS if stream in layers[0]]
    grid = figure.subplots(len(layers), len(streams), sharex=True, sharey="row", squeeze=False)
    edges = [index / BINS for index in range(BINS + 1)]
    for line, layer in zip(grid, layers, strict=True):
        for axes, stream in zip(line, streams, strict=True):
            for module, weights in layer[stream].items():
                axes.stairs(weights["histogram"], edges, fill=True, alpha=0.35, color=_MODULES[module])
                axes.axvline(weights["mean"], color=_MODULES[module], linewidth=1.4, label=module)
            axes.set_yticks([])
            axes.set_xlim(0, 1)
            axes.tick_params(axis="x", labelsize=7, labelcolor=FAINT)
            bare(axes, "x")
        line[0].set_ylabel(f"layer {layer['layer']}", fontsize=8, color=INK)
    for axes, stream in zip(grid[0], streams, strict=True):
        axes.set_title(_TOKENS[stream], fontsize=9, color=INK)
    handles = {label: handle for handle, label in zip(*grid[0][0].get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def _calibration(calibration: Mapping[str, Any]) -> Figure:
    figure = _figure(2.9)
    for axes, by in zip(figure.subplots(1, 2, sharey=True), ("mean", "least"), strict=True):
        bins = calibration[by]
        for x, one in enumerate(bins):
            value, low, high = _points(one)
            axes.errorbar(
                x, value, yerr=[[max(0.0, value - low)], [max(0.0, high - value)]], fmt="o", color=colour_of("on", 0),
                ecolor=INK, elinewidth=1, capsize=2.5, markersize=5, zorder=3,
            )  # fmt: skip
        axes.axhline(0, color=INK, linewidth=0.9)
        labels = [f"{one['from']:.2f}-{one['to']:.2f}\nn = {one['n']:,}" for one in bins]
        axes.set_xticks(range(len(bins)), labels, fontsize=7, color=INK, rotation=45 if len(bins) > 3 else 0)
        axes.set_xlim(-0.5, len(bins) - 0.5)
        axes.set_title(f"{by} score in the image", fontsize=9, color=INK)
        axes.tick_params(axis="y", labelsize=8, labelcolor=FAINT)
        bare(axes, "y")
    figure.supylabel("on - off, points", fontsize=8, color=FAINT)
    return figure


def _points(value: Mapping[str, float]) -> tuple[float, float, float]:
    return 100 * value["value"], 100 * value["low"], 100 * value["high"]


def _error_bar(axes: Axes, value: float, low: float, high: float, y: float) -> None:
    error = [[max(0.0, value - low)], [max(0.0, high - value)]]
    axes.errorbar(value, y, xerr=error, color=INK, elinewidth=0.9, capsize=1.8, capthick=0.9, zorder=3)


def _other(pair: str) -> str:
    other = pair.split("-", 1)[1]
    return name_of(other) if other not in ("on", "off", "shuffled") else other
