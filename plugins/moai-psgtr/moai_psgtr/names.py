"""List the classes and predicates of PSGTR: 133 of COCO panoptic, and 56 of the PSG data set.

Knows: the order in which the model numbers them, kept in `names.json`. A row of object scores has "nothing" after
the last class; a row of predicate scores has "no relation" before the first predicate.
"""

from __future__ import annotations

import json
from pathlib import Path

_DATA = json.loads(Path(__file__).with_name("names.json").read_text(encoding="utf-8"))
THINGS: tuple[str, ...] = tuple(_DATA["things"])
CLASSES: tuple[str, ...] = THINGS + tuple(_DATA["stuff"])
PREDICATES: tuple[str, ...] = tuple(_DATA["predicates"])


def is_thing(label: int) -> bool:
    """Return whether objects of this class can be counted; of the others (sky, road) a picture has one each."""
    return label < len(THINGS)
