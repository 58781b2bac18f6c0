"""Perceptions as ``supervision.Detections`` and back."""

from __future__ import annotations

import sys

import numpy as np
import pytest

from moai.errors import ExpertError
from moai.types import Detection, Mask, Perception, Segment

WIDTH, HEIGHT = 40, 20
BLOB = Mask.encode(np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) % 7 < 3)
DETECTIONS = Perception(
    detections=(Detection("dog", 0.75, (0.25, 0.5, 0.75, 1.0)), Detection("cat", 0.5, (0.0, 0.0, 0.5, 0.5)))
)
SEGMENTS = Perception(
    segments=(
        Segment("dog", 0.75, (0.25, 0.5, 0.75, 1.0), BLOB, attributes={"color": "red"}),
        Segment("sky", 1.0, (0.0, 0.0, 1.0, 0.5), BLOB, is_thing=False),
    )
)


@pytest.fixture
def supervision():
    return pytest.importorskip("supervision", reason="supervision is not installed")


@pytest.mark.parametrize("found", [DETECTIONS, SEGMENTS, Perception()])
def test_there_and_back(supervision, found):
    written = found.to_supervision(WIDTH, HEIGHT)
    assert isinstance(written, supervision.Detections) and len(written) == len(found.segments + found.detections)
    assert Perception.from_supervision(written, WIDTH, HEIGHT) == found


def test_the_library_works_with_what_is_written(supervision):
    written = DETECTIONS.to_supervision(WIDTH, HEIGHT, names=["cat", "bird", "dog"])
    assert written.class_id.tolist() == [2, 0] and written.data["class_name"].tolist() == ["dog", "cat"]
    assert written.area.tolist() == [200.0, 200.0]
    assert len(written[written.confidence > 0.6]) == 1
    merged = supervision.Detections.merge([written, written]).with_nms(0.5)
    again = Perception.from_supervision(merged, WIDTH, HEIGHT, names={0: "cat", 2: "hound"})
    assert sorted(item.label for item in again.detections) == ["cat", "hound"]
    shown = supervision.BoxAnnotator().annotate(np.zeros((HEIGHT, WIDTH, 3), np.uint8), written)
    assert shown.any()


def test_masks_are_all_or_none(supervision):
    both = Perception(segments=SEGMENTS.segments, detections=DETECTIONS.detections)
    assert both.to_supervision(WIDTH, HEIGHT).mask is None
    masks = SEGMENTS.to_supervision(2 * WIDTH, 2 * HEIGHT).mask
    assert masks.shape == (2, 2 * HEIGHT, 2 * WIDTH) and (masks[0, ::2, ::2] == BLOB.decode()).all()


def test_pixels_are_clipped_and_an_empty_mask_is_none(supervision):
    given = supervision.Detections(
        xyxy=np.array([[-5.0, 0.0, 20.0, 30.0]]), mask=np.zeros((1, HEIGHT, WIDTH), bool), class_id=np.array([3])
    )
    found = Perception.from_supervision(given, WIDTH, HEIGHT, names={3: "dog"})
    assert found.detections == (Detection("dog", 1.0, (0.0, 0.0, 0.5, 1.0)),) and not found.segments


def test_mistakes_are_a_sentence(supervision):
    given = supervision.Detections(xyxy=np.array([[0.0, 0.0, 5.0, 5.0]]), class_id=np.array([3]))
    given.xyxy[0, 2] = np.nan  # supervision checks when it is made only
    with pytest.raises(ExpertError, match="detection 0: a number of a box must be a finite number, not nan"):
        Perception.from_supervision(given, WIDTH, HEIGHT, names={3: "dog"})
    given.xyxy[0, 2] = 5
    with pytest.raises(ExpertError, match="detection 0: there is no name for its class 'class_name'; pass names="):
        Perception.from_supervision(given, WIDTH, HEIGHT)
    with pytest.raises(ExpertError, match="no name for its class 3"):
        Perception.from_supervision(given, WIDTH, HEIGHT, names=["dog"])
    with pytest.raises(ExpertError, match=r"are supervision.Detections of one picture, not list"):
        Perception.from_supervision([given], WIDTH, HEIGHT)
    with pytest.raises(ExpertError, match="names lack 'dog'"):
        DETECTIONS.to_supervision(WIDTH, HEIGHT, names=["cat"])


def test_without_the_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    with pytest.raises(ExpertError, match="pip install supervision"):
        DETECTIONS.to_supervision(WIDTH, HEIGHT)
