"""Say of scenes what experts would: detections, lines and tags, and what other experts derive from these.

Knows: perceptions, and the experts ``geometry`` and ``tally`` by name. They run on the detections by their own code, so
their words are exactly theirs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from moai.plugin_api import reading_order, registry
from moai.types import Box, Detection, Perception, Source, TextLine, merge
from moai_words.scene import Line, Scene

DERIVED: Mapping[str, Mapping[str, Any]] = {
    "geometry": {"every_pair": True, "both_ways": True, "texts": False, "max_relations": 8},
    "tally": {"words": False},
}
"""Experts that build on others, with their options."""
OBJECTS, TEXTS = Source("words", "open_world", "1"), Source("words", "ocr", "1")
TAGS = Source("words", "tags", "1")


def perceive(scenes: Sequence[Scene], derived: Mapping[str, Mapping[str, Any]]) -> list[Perception]:
    """Return what experts say of each scene, in the order in which they run.

    Raises:
        ExpertError: an expert of ``derived`` is not installed, or does not take its options.
    """
    found = [_found(scene) for scene in scenes]
    pictures = {size: Image.new("1", size) for size in {scene.size for scene in scenes}}
    images = [pictures[scene.size] for scene in scenes]
    for name, options in derived.items():
        expert = registry().get_expert(name)(**options)
        source = Source(expert.name, expert.role, expert.version)
        more = expert.perceive(images, found)
        found = [merge([one, new, Perception(sources=(source,))]) for one, new in zip(found, more, strict=True)]
    return found


def _found(scene: Scene) -> Perception:
    things = sorted(scene.things, key=lambda thing: -thing.score)
    return Perception(
        detections=tuple(Detection(thing.label, thing.score, thing.box) for thing in things),
        texts=tuple(reading_order([_text(line) for line in scene.lines])),
        notes={"tags": _tags(scene)} if scene.tags else {},
        sources=(OBJECTS, TAGS, TEXTS),
    )


def _tags(scene: Scene) -> tuple[str, ...]:
    """Name the tags, as the expert `tags` does; where it is not installed, with the words that its template has."""
    names = tuple(tag.text for tag in scene.tags)
    worded = ("tags", "en") in registry().templates
    return names if worded else (f"the picture shows {', '.join(names)}.",)


def _text(line: Line) -> TextLine:
    return TextLine(line.text, line.score, _corners(line.box))


def _corners(box: Box) -> tuple[tuple[float, float], ...]:
    x0, y0, x1, y1 = box
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)
