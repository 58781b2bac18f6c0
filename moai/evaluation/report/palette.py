"""Choose colours and names of conditions; the colours differ in grey and for colour-blind readers as well.

Knows: names of conditions, and what matplotlib makes of a dollar sign.
"""

from __future__ import annotations

from moai.evaluation.conditions import NOISY, WITHOUT

INK, FAINT, RULE = "#22272e", "#6b737d", "#d4d8dd"
COLOURS = {"on": "#0b6e8f", "off": "#c9ccd1", "shuffled": "#e39b4c", "oracle": "#3f7d4e"}
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


def drawn(text: str) -> str:
    """Make untrusted text safe to draw: no control characters, no formulas."""
    return "".join(char if char.isprintable() else " " for char in text).replace("$", r"\$")
