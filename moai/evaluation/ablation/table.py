"""Render the ablations' table: for the terminal, as Markdown and JSON, and as a picture.

Knows: the layout of ``summarize_ablations``, rich and matplotlib.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from moai.assets.replacing import replacing
from moai.evaluation.report.markdown import escape
from moai.evaluation.report.palette import colour_of
from moai.evaluation.report.save import write_json, write_text
from moai.plot_style import FAINT, INK, RULE, drawn

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from rich.table import Table

COLUMNS = {  # title -> key of a row; differences are signed
    "on": "on",
    "on - off": "on-off",
    "on - shuffled": "on-shuffled",
    "open": "open",
    "on - base": "against_base",
    "open - base": "open_against_base",
}
SIGNED = {title for title in COLUMNS if " - " in title}
NOTE = (
    "Exact match in per cent, differences in points, paired by question, with 95 % bootstrap intervals over images. "
    "Each row is one training with one seed: intervals hold for the weights of that training, and do not include "
    "the variation between seeds."
)


def save_ablations(summary: Mapping[str, Any], folder: str | Path) -> list[Path]:
    """Write ``ablations.json``, ``ablations.md`` and ``ablations.png`` into ``folder``; returns their paths."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"ablations.{kind}" for kind in ("json", "md", "png")]
    write_json(paths[0], summary)
    write_text(paths[1], render_markdown(summary))
    draw_ablations(summary, paths[2])
    return paths


def headline(summary: Mapping[str, Any]) -> str:
    """Describe in one line what was measured."""
    whole = summary["n"] == summary["available"]
    count = f"all {summary['n']:,}" if whole else f"{summary['n']:,} of {summary['available']:,}"
    data = f"{summary['data']}, " if summary["data"] else ""
    return f"Ablations of {summary['base']}: {data}{summary['split']} split, {count} questions"


def render_ablations(summary: Mapping[str, Any], width: int = 160) -> Table:
    """Render name with what it changes, figures with their intervals below, parameters, seconds per step.

    Args:
        summary: the figures.
        width: columns of the terminal; where it is narrow, intervals are rounded to whole points, and on - off is left
            to the files.
    """
    from rich import box
    from rich.markup import escape as quoted
    from rich.table import Table

    table = Table(title=quoted(headline(summary)), caption=quoted(NOTE), box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.title_justify = table.caption_justify = "left"
    table.add_column("recipe", overflow="fold", min_width=16)
    wide, form = width >= 100, "{}\n[dim]{}..{}[/dim]"
    shown = {title: key for title, key in COLUMNS.items() if wide or title != "on - off"}
    for title in (*shown, "trained\ns/step"):
        table.add_column(title.replace(" - ", " -\n"), justify="right")
    for row in summary["rows"]:
        head = f"{quoted(row['name'])}\n[dim]{quoted(changes(row))}[/dim]"
        if row["failure"]:
            table.add_row(f"{head}\n{quoted(_plain('failed: ' + row['failure']))}", *["-"] * (len(shown) + 1))
            continue
        cells = [_cell(row[key], title in SIGNED, form, int(wide)) for title, key in shown.items()]
        table.add_row(head, *cells, "\n".join(_sizes(row)), style="bold" if row["name"] == summary["base"] else "")
    return table


def render_markdown(summary: Mapping[str, Any]) -> str:
    """Render the same table for a README or an issue."""
    titles = ["recipe", "changes", *COLUMNS, "trained", "s/step"]
    lines = [titles, ["---"] * len(titles)]
    for row in summary["rows"]:
        head = [escape(row["name"]), escape(changes(row))]
        if row["failure"]:
            head[1] = f"{head[1]}; failed: {escape(row['failure'])}"
            lines.append(head + ["-"] * (len(COLUMNS) + 2))
            continue
        cells = [_cell(row[key], title in SIGNED, "{} ({} to {})") for title, key in COLUMNS.items()]
        lines.append(head + cells + _sizes(row))
    table = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"# {escape(headline(summary))}\n\n{table}\n\n{NOTE}\n"


def changes(row: Mapping[str, Any]) -> str:
    """List a row's changes: ``compressor.latents=16``, or ``the base``."""
    listed = [f"{key}={json.dumps(value)}" for key, value in row["changed"].items()]
    return " ".join(listed).replace('"', "") or "the base"


def draw_ablations(summary: Mapping[str, Any], path: str | Path) -> Path:
    """Draw what each recipe reads (on - shuffled) and how far it is from the base into a PNG file."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, path = summary["rows"], Path(path)
    figure = Figure(figsize=(10, 1.9 + 0.34 * len(rows)), dpi=150, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2, sharey=True)
    _points(left, rows, {"on-shuffled": ("all questions", colour_of("on", 0), 0.0)})
    series = {
        "against_base": ("all questions", colour_of("on", 0), -0.14),
        "open_against_base": ("open questions", colour_of("shuffled", 0), 0.14),
    }
    _points(right, rows, series)
    left.set_title("Is perception read? on - shuffled", fontsize=10, color=INK, loc="left")
    right.set_title(f"Difference to {drawn(summary['base'])}", fontsize=10, color=INK, loc="left")
    labels = [drawn(row["name"]) + (" (failed)" if row["failure"] else "") for row in rows]
    left.set_yticks(range(len(rows)), labels, fontsize=9, color=INK)
    left.set_ylim(len(rows) - 0.5, -0.5)
    handles, names = right.get_legend_handles_labels()
    if handles:
        figure.legend(handles, names, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    figure.suptitle(f"{drawn(headline(summary))}; bars: 95 % intervals", fontsize=10, color=FAINT)
    with replacing(path) as part:
        figure.savefig(part, format="png")
    return path


def _points(axes: Axes, rows, series: Mapping[str, tuple[str, str, float]]) -> None:
    for key, (label, colour, offset) in series.items():
        found = [(y, row[key]) for y, row in enumerate(rows) if row.get(key)]
        for y, value in found:
            middle, low, high = (100 * value[part] for part in ("value", "low", "high"))
            error = [[max(0.0, middle - low)], [max(0.0, high - middle)]]
            axes.errorbar(
                middle, y + offset, xerr=error, fmt="o", color=colour, ecolor=INK, elinewidth=0.9, capsize=2,
                markersize=5, zorder=3, label=label if y == found[0][0] else None,
            )  # fmt: skip
    axes.axvline(0, color=INK, linewidth=0.9, zorder=2)
    axes.grid(color="#e6e8eb", linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.set_xlabel("points", fontsize=9, color=FAINT)
    axes.tick_params(length=0, labelsize=9, labelcolor=FAINT)
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["left"].set_color(RULE)


def _cell(value: Mapping[str, float] | None, signed: bool, form: str, digits: int = 1) -> str:
    if value is None:
        return "-"
    sign = "+" if signed else ""
    bounds = (f"{100 * value[key]:{sign}.{digits}f}" for key in ("low", "high"))
    return form.format(f"{100 * value['value']:{sign}.1f}", *bounds)


def _sizes(row: Mapping[str, Any]) -> list[str]:
    seconds = row["seconds_per_step"]
    return [f"{row['parameters'] / 1e6:.1f} M", "-" if seconds is None else f"{seconds:.2f}"]


def _plain(text: str) -> str:
    return "".join(char if char.isprintable() else " " for char in text)
