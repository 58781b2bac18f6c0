"""Write what was found in an image as one JSON object, each finding with its expert and version.

Knows: perceptions. ``python -m moai.perception.json_lines``, in a clone, writes the JSON schema anew, which is
docs/perceive.schema.json.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field, RootModel

from moai.types import Box, Perception

SCHEMA = Path(__file__).parents[2] / "docs" / "perceive.schema.json"
COMMAND = "python -m moai.perception.json_lines"
_SIZE = Field(ge=1, description="Pixels, of the image after EXIF rotation.")
_SCORE = Field(ge=0, le=1)
_BOX = Field(description="Left, top, right and bottom, in parts of the image's width and height.")
_POLYGON = Field(description="Corners (x, y) in parts of the image, clockwise from the top left; empty where unknown.")
_KINDS = ("segments", "detections", "relations", "texts")


class _Plain(BaseModel):
    model_config = ConfigDict(extra="forbid")


class Found(_Plain):
    """Say which expert found something."""

    source: str = Field(description="Name of the expert; several with ' or ' where a note may be of any of them.")
    version: str = Field(description="Of the expert.")


class MaskRuns(_Plain):
    """A mask, run-length encoded column by column as COCO does, zeros first."""

    height: int = _SIZE
    width: int = _SIZE
    counts: list[int]


class FoundSegment(Found):
    """A region of a segmentation."""

    label: str
    score: float = _SCORE
    box: Box = _BOX
    mask: MaskRuns | None
    is_thing: bool
    attributes: dict[str, str]


class FoundDetection(Found):
    """An object of a detector."""

    label: str
    score: float = _SCORE
    box: Box = _BOX


class FoundRelation(Found):
    """A relation between two things."""

    subject: str
    predicate: str
    object: str
    score: float = _SCORE
    subject_box: Box | None = _BOX
    object_box: Box | None = _BOX


class FoundText(Found):
    """A line of text as it was read; untrusted."""

    text: str
    score: float = _SCORE
    polygon: list[tuple[float, float]] = _POLYGON


class FoundNote(Found):
    """A sentence of an expert whose role is of its own."""

    role: str
    text: str


class LineSource(_Plain):
    """An expert that answered."""

    expert: str
    role: str
    version: str
    cached: bool = Field(description="Whether its findings came from the cache.")


class LineFailure(_Plain):
    """An expert that gave nothing for this image."""

    expert: str
    reason: str


class PerceivedLine(_Plain):
    """What the experts found in an image."""

    image: str = Field(description="As it was given.")
    width: int = _SIZE
    height: int = _SIZE
    overlay: str | None = Field(description="Path of the picture with the findings drawn.")
    segments: list[FoundSegment]
    detections: list[FoundDetection]
    relations: list[FoundRelation]
    texts: list[FoundText]
    notes: list[FoundNote]
    sources: list[LineSource]
    failures: list[LineFailure]
    verbalized: str = Field(description="The findings in words, as a model gets them.")


class ErrorLine(_Plain):
    """An image that cannot be read."""

    image: str
    error: str


class Line(RootModel):
    """A line of `moai perceive --json`: one for each image, in their order."""

    root: PerceivedLine | ErrorLine


def perceived_line(
    image: str, size: tuple[int, int], perception: Perception, words: str, overlay: Path | None = None
) -> dict[str, Any]:
    """Make the JSON object of an image that was perceived.

    Args:
        image: its name, as it was given.
        size: width and height in pixels.
        perception: by a ``Perceiver``, which names the source of each finding.
        words: the perception in words.
        overlay: where the findings were drawn.
    """
    fields = perception.to_dict()
    versions = {source.expert: source.version for source in perception.sources}
    for kind in _KINDS:
        for finding in fields[kind]:
            finding["version"] = versions.get(finding["source"], "")
    fields["notes"] = [
        {"role": role, "text": text, **_note_source(role, perception)}
        for role, texts in perception.notes.items()
        for text in texts
    ]
    place = {"image": image, "width": size[0], "height": size[1], "overlay": str(overlay) if overlay else None}
    return {**place, **fields, "verbalized": words}


def json_schema() -> str:
    """Return the JSON schema of a line, as a file holds it."""
    return json.dumps(Line.model_json_schema(), indent=2) + "\n"


def _note_source(role: str, perception: Perception) -> dict[str, str]:
    """Name the experts of a note's role; notes say no more, since they are kept by role."""
    own = [source for source in perception.sources if source.role == role]
    return {"source": " or ".join(s.expert for s in own), "version": " or ".join(s.version for s in own)}


if __name__ == "__main__":
    SCHEMA.write_text(json_schema(), encoding="utf-8")
