"""An object that is a segment and a detection is said once when asked; styles and scores."""

from __future__ import annotations

import pytest

from moai.perception.words.compact import place
from moai.perception.words.verbalize import verbalize
from moai.plugins import load_registry
from moai.types import Detection, Mask, Perception, Relation, Segment, TextLine, merge_duplicates

BOX, NEAR, FAR = (0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.52), (0.1, 0.4, 0.5, 0.9)
MASK = Mask(2, 2, (0, 4))


@pytest.fixture(scope="module")
def registry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_PLUGINS", "")
        return load_registry()


def merged(segments, detections, **options) -> Perception:
    return merge_duplicates(Perception(segments=tuple(segments), detections=tuple(detections)), **options)


@pytest.mark.parametrize(
    ("segment", "detection", "name"),
    [
        ("dog", "dog", "dog"),
        ("Dog", "dog", "Dog"),
        ("dog", "brown dog", "brown dog"),
        ("brown dog", "dog", "brown dog"),
        ("wall-other-merged", "wall", "wall-other-merged"),
        ("wall-brick", "brick wall", "wall-brick"),
        ("강아지", "갈색 강아지", "갈색 강아지"),
    ],
)
def test_the_same_or_a_longer_name_is_one_object(segment, detection, name):
    seen = merged([Segment(segment, 0.6, BOX, MASK)], [Detection(detection, 0.8, NEAR)])
    assert seen.detections == () and seen.segments == (Segment(name, 0.8, BOX, MASK),)


@pytest.mark.parametrize(("detection", "box"), [("dog", FAR), ("cat", BOX), ("hotdog", BOX), ("?!", BOX)])
def test_other_names_and_places_are_other_objects(detection, box):
    seen = Perception(segments=(Segment("dog", 0.6, BOX),), detections=(Detection(detection, 0.8, box),))
    assert merge_duplicates(seen) == seen


def test_the_better_score_stays_and_attributes_do():
    red = Segment("circle", 0.9, BOX, MASK, attributes={"color": "red"})
    assert merged([red], [Detection("circle", 0.2, BOX)]).segments == (red,)
    [big] = merged([red], [Detection("big red circle", 0.2, BOX)]).segments
    assert (big.label, big.attributes, big.score, big.mask) == ("big red circle", {}, 0.9, MASK)


def test_a_detection_goes_to_the_segment_it_overlaps_most():
    two = [Segment("dog", 0.5, NEAR), Segment("dog", 0.5, BOX)]
    seen = merged(two, [Detection("dog", 0.9, BOX), Detection("cup", 0.9, BOX), Detection("dog", 0.7, BOX)])
    assert [s.score for s in seen.segments] == [0.5, 0.9] and [d.label for d in seen.detections] == ["cup"]


def test_the_overlap_can_be_chosen_and_empty_boxes_divide_by_nothing():
    assert merged([Segment("dog", 0.5, BOX)], [Detection("dog", 0.5, FAR)], partly=0.1).detections == ()
    point = (0.5, 0.5, 0.5, 0.5)
    assert merged([Segment("dog", 0.5, point)], [Detection("dog", 0.5, point)]).detections == ()
    assert merged([Segment("dog", 0.5, point)], [Detection("dog", 0.5, BOX)]).detections


def test_nothing_is_merged_unless_asked(registry):
    seen = Perception(segments=(Segment("dog", 0.5, BOX),), detections=(Detection("dog", 0.5, BOX),))
    assert verbalize(seen, registry=registry).count("dog") == 2
    assert verbalize(seen, registry=registry, merge=True).count("dog") == 1


@pytest.mark.parametrize(
    ("box", "where"),
    [
        ((0.0, 0.0, 0.2, 0.2), "top left"),
        ((0.4, 0.0, 0.6, 0.2), "top"),
        ((0.8, 0.0, 1.0, 0.2), "top right"),
        ((0.0, 0.4, 0.2, 0.6), "left"),
        ((0.0, 0.0, 1.0, 1.0), "center"),
        ((0.8, 0.4, 1.0, 0.6), "right"),
        ((0.0, 0.8, 0.2, 1.0), "bottom left"),
        ((0.4, 0.8, 0.6, 1.0), "bottom"),
        ((0.8, 0.8, 1.0, 1.0), "bottom right"),
        ((0.0, 0.32, 0.66, 0.34), "top left"),
        ((0.34, 0.34, 0.34, 0.34), "center"),
    ],
)
def test_places(box, where):
    assert place(box) == where


def test_the_compact_style(registry):
    seen = Perception(
        segments=(Segment("circle", 0.9, (0.4, 0.4, 0.6, 0.6), attributes={"color": "red"}),),
        detections=(Detection("dog", 0.8, BOX), Detection("cup-stuff", 0.7, (0.8, 0.4, 1.0, 0.6))),
        relations=(Relation("dog", "left of", "dog", 0.7, BOX, FAR), Relation("cup", "on", "table", 0.6)),
        texts=(TextLine("EXIT", 0.9, ((0.4, 0.0), (0.6, 0.1))), TextLine("no\nplace", 0.5), TextLine("\x00", 1.0)),
        notes={"weather": ("It rains.",)},
    )
    assert verbalize(seen, style="compact", registry=registry) == (
        "center red circle. top left dog, right cup. dog #1 left of dog #2, cup on table. "
        "top text EXIT, text no place. It rains."
    )
    assert verbalize(Perception(), style="compact", registry=registry) == ""


def test_a_style_falls_back_for_own_roles(registry):
    templates = {**registry.templates, ("depth", "en"): lambda p: "Near."}
    known = type(registry)(templates=templates)
    seen = Perception(notes={"depth": ("x",), "weather": ("It rains.",)})
    assert verbalize(seen, style="compact", registry=known) == "Near. It rains."
    templates["depth", "en-x-compact"] = lambda p: "near"
    assert verbalize(seen, style="compact", registry=known) == "near It rains."
    assert verbalize(seen, "ko", registry=known) == "x It rains."


def test_scores_reach_only_templates_that_take_them(registry):
    templates = {**registry.templates, ("depth", "en"): lambda p, scores=False: f"scores {scores}"}
    templates["weather", "en"] = lambda p: "fine"
    known = type(registry)(templates=templates)
    seen = Perception(texts=(TextLine("EXIT", 0.876),), notes={"depth": ("x",), "weather": ("x",)})
    assert verbalize(seen, registry=known, scores=True) == (
        "The image includes text descriptions: EXIT (0.88). scores True fine"
    )
    assert verbalize(seen, registry=known) == "The image includes text descriptions: EXIT. scores False fine"
