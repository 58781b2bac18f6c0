"""Conclude a comparison in one or two sentences.

Knows: the summary's layout.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def verdict(summary: Mapping[str, Any], other: str) -> str:
    """State whether perception on beats, matches or loses to ``other``, and what each reads per question.

    It beats when the whole 95 % interval of the paired difference lies above 0, loses when it lies below, and matches
    when the interval holds 0.
    """
    overall = summary["groups"]["overall"]
    d, accuracy = overall["differences"][f"on-{other}"], overall["accuracy"]
    ours, theirs = (100 * accuracy[name]["value"] for name in ("on", other))
    name = summary["name"] or "the run"
    margin = f"{100 * d['value']:+.1f} points ({100 * d['low']:+.1f} to {100 * d['high']:+.1f})"
    text = f"{name} {outcome(d)} {other}: {ours:.1f} % against {theirs:.1f} %, {margin}"
    text += ", an interval that includes 0." if outcome(d) == "matches" else "."
    parts = {title: group["differences"][f"on-{other}"] for title, group in summary["groups"].items()}
    lost = [title for title, part in parts.items() if outcome(part) == "loses to" and title != "overall"]
    if lost:
        text += f" It loses on: {', '.join(lost)}."
    return f"{text} {_cost(summary, name, other)}".strip()


def reading(summary: Mapping[str, Any]) -> str:
    """State in one sentence whether perception is read, by the distance from another image's."""
    overall = summary["groups"]["overall"]
    accuracy, differences = overall["accuracy"], overall["differences"]
    if "on-shuffled" not in differences:
        condition = "on" if "on" in accuracy else next(iter(accuracy))
        return f"{100 * accuracy[condition]['value']:.1f} % of the answers are right"
    d = differences["on-shuffled"]
    value, low, high = (f"{100 * d[key]:+.1f}" for key in ("value", "low", "high"))
    if outcome(d) == "beats":
        return f"Perception is read: {value} points over another image's ({low} to {high})"
    if outcome(d) == "loses to":
        return f"Perception misleads: {value} points against another image's ({low} to {high})"
    return f"Nothing shows that perception is read: {value} points over another image's ({low} to {high})"


def outcome(difference: Mapping[str, float]) -> str:
    """Return ``beats``, ``matches`` or ``loses to``."""
    if difference["low"] > 0:
        return "beats"
    return "loses to" if difference["high"] < 0 else "matches"


def _cost(summary: Mapping[str, Any], name: str, other: str) -> str:
    tokens = summary.get("tokens", {})
    if "on" not in tokens or other not in tokens:
        return ""
    ours, theirs = tokens["on"]["read"], tokens[other]["read"]
    share = f"{ours / theirs:.0%} of the tokens" if theirs else "tokens where the other reads none"
    return f"It reads {ours:.1f} tokens a question against {theirs:.1f}: {share}."
