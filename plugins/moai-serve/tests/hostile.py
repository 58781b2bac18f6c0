"""All hostile requests, generated."""

from __future__ import annotations

from hostile_bodies import broken_json, huge, texts, wrong_types
from hostile_pictures import pictures
from hostile_request import Attack
from hostile_wire import headers, leaving, paths_and_methods, slow


def corpus() -> list[Attack]:
    """All hostile requests, in a fixed order."""
    kinds = (broken_json, wrong_types, huge, texts, pictures, headers, paths_and_methods, slow, leaving)
    return [attack for kind in kinds for attack in kind()]
