"""Give all plots one style: ink, rules, bare axes, and text that is safe to draw.

Knows: matplotlib's axes, and what it makes of a dollar sign.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes

INK, FAINT, RULE, GRID = "#22272e", "#6b737d", "#d4d8dd", "#e6e8eb"
COLOURS = {"on": "#0b6e8f", "off": "#a9aeb6", "shuffled": "#e39b4c", "oracle": "#3f7d4e"}


def bare(axes: Axes, grid: str) -> None:
    """Leave only a grid of thin lines along one axis (``x`` or ``y``) and the spine that it starts from."""
    axes.grid(axis=grid, color=GRID, linewidth=0.7, zorder=0)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for side in ("top", "right", "left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.spines["bottom" if grid == "y" else "left"].set(visible=True, color=RULE)


def drawn(text: str) -> str:
    """Make untrusted text safe to draw: no control characters, no formulas."""
    return "".join(char if char.isprintable() else " " for char in text).replace("$", r"\$")
