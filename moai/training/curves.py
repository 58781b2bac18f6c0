"""Draw the course of a training run: its losses stage by stage, and whether perception was read meanwhile.

Knows: the lines of the training log, and matplotlib.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.assets.replacing import replacing
from moai.plot_style import COLOURS, FAINT, INK, RULE, bare, drawn
from moai.training.log import read_log

if TYPE_CHECKING:
    from matplotlib.axes import Axes

FILE = "curves.png"
_WINDOW = 15  # steps of a moving average, centred, within a stage
_LOG = 20.0  # ratio of the largest to the smallest loss from which the axis is logarithmic
_SUPERVISED, _ALIGN = "#9467a8", "#3f7d4e"
Line = dict[str, Any]
Points = list[tuple[int, float]]


def draw_curves(run_dir: Path) -> Path | None:
    """Draw ``curves.png`` of a run's log; nothing where the log is empty.

    Up to four panels share the steps: the loss of the answers, the losses that teach where to look (of the stage that
    aligns, and the supervision beside the answers), the validation loss with the image's, another image's and no
    perception, and the compressor's spread. A line and a name at the top mark where each stage begins.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(run_dir)
    panels = [panel for panel in (_answers, _looking, _validation, _spread) if _has(panel, lines)]
    if not panels:
        return None
    figure = Figure(figsize=(8.4, 0.9 + 2.3 * len(panels)), dpi=130, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)  # no window system and no global state, so it is safe in threads
    rows = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
    for axes, panel in zip(rows, panels, strict=True):
        panel(axes, lines)
        _style(axes)
    last = max(line["step"] for line in lines)
    rows[-1].set_xlim(0, last * 1.02 + 1)
    rows[-1].set_xlabel("step", fontsize=9, color=FAINT)
    _mark_stages(rows, lines)
    figure.suptitle(f"{drawn(run_dir.name)}: training", x=0.01, ha="left", fontsize=13, fontweight="bold", color=INK)
    path = run_dir / FILE
    with replacing(path) as part:
        figure.savefig(part, format="png")
    return path


def smooth(points: Points) -> Points:
    """Average each point with its neighbours, as many on each side, so that the line lies on the data."""
    values = [value for _, value in points]
    averaged = []
    for index, (step, _) in enumerate(points):
        reach = min(_WINDOW // 2, index, len(points) - 1 - index)
        near = values[index - reach : index + reach + 1]
        averaged.append((step, sum(near) / len(near)))
    return averaged


def _answers(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_title("Loss of the answers, nats per token", fontsize=10, color=INK, loc="left")
    _draw(axes, [_points(part, "loss") for part in _stages(lines)], COLOURS["on"], "moving average")


def _looking(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_title("Losses of where to look, nats", fontsize=10, color=INK, loc="left")
    stages = _stages(lines)
    aligned = [_points([line for line in part if "loss" not in line], "attention") for part in stages]
    guided = [_points([line for line in part if "loss" in line], "attention") for part in stages]
    _draw(axes, aligned, _ALIGN, "alignment, moving average")
    _draw(axes, guided, _SUPERVISED, "supervision beside the answers, moving average")
    found = _points(lines, "attention_validation")
    if found:
        axes.plot(*zip(*found, strict=True), "o-", color=_ALIGN, markersize=4, linewidth=1, clip_on=False,
                  label="alignment, validation questions")  # fmt: skip


def _validation(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_title("Validation loss, nats", fontsize=10, color=INK, loc="left")
    axes.set_xlabel("Perception is read where another image's serves worse.", fontsize=8, color=FAINT, loc="left")
    names = {"on": "perception on", "shuffled": "another image's", "off": "perception off"}
    for name, label in names.items():
        found = _points(lines, f"loss_{name}")
        if found:
            axes.plot(*zip(*found, strict=True), "o-", color=COLOURS[name], markersize=4.5, linewidth=1.5, label=label,
                      clip_on=False, zorder=3)  # fmt: skip
    _from_zero(axes)


def _spread(axes: Axes, lines: Sequence[Line]) -> None:
    axes.set_title("Compressor: spread across samples", fontsize=10, color=INK, loc="left")
    found = _points(lines, "spread")
    axes.plot(*zip(*found, strict=True), "o-", color=COLOURS["on"], markersize=4.5, linewidth=1.5, clip_on=False,
              label="share of the whole spread; 0: a constant", zorder=3)  # fmt: skip
    _from_zero(axes)


def _has(panel: Any, lines: Sequence[Line]) -> bool:
    keys = {_answers: "loss", _looking: "attention", _validation: "loss_on", _spread: "spread"}
    if panel is _spread and not any(line.get("spread") for line in lines):
        return False  # a model without a compressor
    return any(keys[panel] in line for line in lines)


def _draw(axes: Axes, parts: Sequence[Points], colour: str, label: str) -> None:
    """Draw each step pale and its moving average, stage by stage."""
    parts = [part for part in parts if part]
    values = [value for part in parts for _, value in part]
    if not values:
        return
    for number, part in enumerate(parts):
        marker = "o" if len(part) < 3 else None
        axes.plot(*zip(*part, strict=True), marker=marker, color=RULE, linewidth=0.9, markersize=4, zorder=1,
                  label=None if number or axes.lines else "each step")  # fmt: skip
    for number, part in enumerate(parts):
        axes.plot(*zip(*smooth(part), strict=True), color=colour, linewidth=1.7, zorder=2,
                  label=None if number else label)  # fmt: skip
    if min(values) > 0 and max(values) > _LOG * min(values):
        axes.set_yscale("log")
    elif axes.get_yscale() == "linear":
        _from_zero(axes)


def _from_zero(axes: Axes) -> None:
    axes.set_ylim(0, max(axes.dataLim.y1 * 1.08, 1e-6))


def _stages(lines: Sequence[Line]) -> list[list[Line]]:
    """Split the lines where a stage begins."""
    parts: list[list[Line]] = []
    for line in lines:
        if not parts or line.get("stage") != parts[-1][-1].get("stage"):
            parts.append([])
        parts[-1].append(line)
    return parts


def _points(lines: Sequence[Line], key: str) -> Points:
    return [(line["step"], line[key]) for line in lines if key in line]


def _mark_stages(rows: Sequence[Axes], lines: Sequence[Line]) -> None:
    """Name the stages over the first panel, and mark in all where each begins."""
    stages = _stages(lines)
    for number, part in enumerate(stages):
        start = part[0]["step"] - 1
        for axes in rows if number else ():
            axes.axvline(start, color=FAINT, linestyle=(0, (4, 3)), linewidth=0.8, zorder=0)
    width, last = 0, lines[-1]["step"]
    for part in stages:
        start, name = part[0]["step"] - 1, drawn(str(part[0].get("stage", "")))
        place = start / (last * 1.02 + 1)
        if place < width:  # its name would cover the one before
            continue
        width = place + 0.013 * (len(name) + 2)
        rows[0].annotate(f"{name} \N{RIGHTWARDS ARROW}", (start, 1.0), xycoords=("data", "axes fraction"),
                         xytext=(3, -3), textcoords="offset points", va="top", fontsize=8, color=FAINT)  # fmt: skip


def _style(axes: Axes) -> None:
    bare(axes, "y")
    axes.tick_params(labelsize=8, labelcolor=FAINT, which="both", length=0)
    if axes.get_yscale() == "log":
        axes.yaxis.set_major_formatter(lambda value, _: f"{value:g}")
    # Beside the title, where it covers nothing.
    axes.legend(loc="lower right", bbox_to_anchor=(1, 0.99), ncols=4, frameon=False, fontsize=8, borderpad=0,
                columnspacing=1.2, handlelength=1.6)  # fmt: skip
