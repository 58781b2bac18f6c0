"""Make what perfect experts would return of a photograph, as it was written by looking at it.

Knows: the layout of `questions.yaml`. Things are detections, or segments where a colour or kind is written; what
cannot be counted (sky, grass) is a segment that is no thing. Scores are 1. Nothing is computed by a detector.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import moai
from moai.plugin_api import registry
from moai.types import Box, Detection, Perception, Relation, Segment, Source, TextLine, merge

COLORS = frozenset({"black", "blue", "orange", "white", "yellow"})


def truth_of(entry: Mapping[str, Any]) -> Perception:
    """Build the perception of one entry of `questions.yaml`."""
    things, stuff, texts = (entry.get(name, []) for name in ("things", "stuff", "texts"))
    segments = [_segment(row, True) for row in things if len(row) == 6] + [_segment(row, False) for row in stuff]
    detections = [Detection(row[0], 1.0, _box(row)) for row in things if len(row) == 5]
    lines = [TextLine(row[0], 1.0, _corners(_box(row))) for row in texts]
    places = dict(_places([*things, *stuff, *texts]))
    relations = [_relation(row, places) for row in entry.get("relations", [])]
    parts = {"panoptic": segments, "open_world": detections, "scene_graph": relations, "ocr": lines}
    return Perception(
        segments=tuple(segments),
        detections=tuple(detections),
        relations=tuple(relations),
        texts=tuple(lines),
        sources=tuple(Source("truth", role, "1") for role, found in parts.items() if found),
    )


def derive(truth: Perception, image: Path, experts: Mapping[str, Mapping[str, Any]]) -> Perception:
    """Add what experts make of the truth that build on others (`geometry`, `tally`), in the order given.

    Args:
        truth: what they get to know, with what the ones before them added.
        image: they may open it; those named above use its proportions only.
        experts: their names, and the options of each.
    """
    for name, options in experts.items():
        expert = registry().get_expert(name)(**options)
        [found] = expert.perceive([moai.read_image(image)], [truth])
        source = Perception(sources=(Source(name, expert.role, expert.version),))
        truth = merge([truth, found, source])
    return truth


def _segment(row: Sequence[str], is_thing: bool) -> Segment:
    attributes = {"color" if row[5] in COLORS else "kind": row[5]} if len(row) == 6 else {}
    return Segment(row[0], 1.0, _box(row), None, is_thing, attributes)


def _box(row: Sequence[str]) -> Box:
    x0, y0, x1, y1 = (float(value) for value in row[1:5])
    return x0, y0, x1, y1


def _corners(box: Box) -> tuple[tuple[float, float], ...]:
    x0, y0, x1, y1 = box
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def _places(rows: Sequence[Sequence[str]]) -> Iterator[tuple[str, tuple[str, Box]]]:
    """Yield ``(reference, (name, box))``: "person" and "person 1" are the first person, "person 2" the second."""
    seen: dict[str, int] = {}
    for row in rows:
        seen[row[0]] = number = seen.get(row[0], 0) + 1
        name = f"{row[5]} {row[0]}" if len(row) == 6 else row[0]
        yield f"{row[0]} {number}", (name, _box(row))
        if number == 1:
            yield row[0], (name, _box(row))


def _relation(row: Sequence[str], places: Mapping[str, tuple[str, Box]]) -> Relation:
    (subject, subject_box), (object_, object_box) = places[row[0]], places[row[2]]
    return Relation(subject, row[1], object_, 1.0, subject_box, object_box)
