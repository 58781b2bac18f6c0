"""Choose colours and names of conditions; the colours differ in grey and for colour-blind readers as well.

Knows: names of conditions.
"""

from __future__ import annotations

from moai.evaluation.conditions import NOISY, WITHOUT
from moai.plot_style import COLOURS

_MORE = ("#9467a8", "#b5651d", "#5b8fb9", "#a3a847", "#c76b7e", "#4a4e69", "#7fb8a4")
_NAMES = {
    "on": "perception on",
    "off": "perception off",
    "shuffled": "another image's perception",
    "oracle": "ground truth",
    "other-image": "another image",
}


def colour_of(condition: str, place: int) -> str:
    """Return a colour; ``place`` tells further conditions and baselines apart."""
    return COLOURS.get(condition) or _MORE[place % len(_MORE)]


def name_of(condition: str) -> str:
    """Return a condition's title: ``perception on``, ``without shapes``, ``30 % noise``; a baseline's name stays."""
    if condition.startswith(WITHOUT):
        return f"without {condition.removeprefix(WITHOUT)}"
    if condition.startswith(NOISY):
        return f"{100 * float(condition.removeprefix(NOISY)):g} % noise"
    return _NAMES.get(condition, condition)
