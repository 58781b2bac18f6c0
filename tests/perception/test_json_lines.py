"""The lines of `moai perceive --json`: they keep the schema in docs, and name the expert of each finding."""

from __future__ import annotations

import numpy as np
import pytest
from pydantic import ValidationError

from moai.perception.json_lines import COMMAND, SCHEMA, Line, json_schema, perceived_line
from moai.types import Detection, Failure, Mask, Perception, Relation, Segment, Source, TextLine, merge, sign

BOX = (0.0, 0.25, 1.0, 1.0)


def everything() -> Perception:
    found = {
        Source("shapes", "panoptic", "3"): Perception(
            segments=(Segment("disc", 0.5, BOX, Mask.encode(np.eye(3)), attributes={"color": "red"}),)
        ),
        Source("boxes", "open_world", "1"): Perception(detections=(Detection("cat", 0.5, BOX),)),
        Source("near", "scene_graph", "2", True): Perception(relations=(Relation("cat", "on", "disc", 0.5, BOX),)),
        Source("one", "ocr", "1"): Perception(texts=(TextLine("EXIT", 0.5),)),
        Source("two", "ocr", "5"): Perception(texts=(TextLine("EXIT 4", 0.5, ((0.0, 0.0), (1.0, 1.0))),)),
        Source("tally", "count", "7"): Perception(notes={"count": ("one cat.", "one disc.")}),
    }
    signed = [sign(perception, source) for source, perception in found.items()]
    return merge([*signed, Perception(failures=(Failure("broken", "no battery"),))])


def test_the_schema_in_docs_is_that_of_the_lines():
    assert SCHEMA.read_text(encoding="utf-8") == json_schema(), f"run {COMMAND}"


def test_each_finding_has_its_expert_and_version():
    line = perceived_line("a.png", (4, 3), everything(), "words")
    Line.model_validate(line)
    kinds = ("segments", "detections", "relations", "texts", "notes")
    assert [(f["source"], f["version"]) for kind in kinds for f in line[kind]] == [
        *(("shapes", "3"), ("boxes", "1"), ("near", "2"), ("one", "1"), ("two", "5"), ("tally", "7"), ("tally", "7")),
    ]
    assert [source["expert"] for source in line["sources"] if source["cached"]] == ["near"]
    assert (line["width"], line["height"], line["overlay"]) == (4, 3, None)


def test_the_schema_refuses_what_is_no_line():
    line = perceived_line("a.png", (4, 3), everything(), "words")
    Line.model_validate({"image": "a.png", "error": "it is empty"})
    for wrong in ({**line, "extra": 1}, {**line, "width": 0}, {"image": "a.png"}, {**line, "texts": [{"text": "a"}]}):
        with pytest.raises(ValidationError):
            Line.model_validate(wrong)
