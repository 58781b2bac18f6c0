"""Spatial relations between drawn objects, and that the expert keeps the contract."""

from __future__ import annotations

import time

import numpy as np
import pytest
from moai_geometry import Geometry, collect
from PIL import Image

from moai.testing import check_expert
from moai.types import Detection, Mask, Perception, Segment, TextLine

PAGE = Image.new("RGB", (320, 240))
WIDTH, HEIGHT = PAGE.size


def segment(name, x0, y0, x1, y1, *, stuff=False, masked=True, holes=()):
    """A rectangle in pixels of `PAGE`, minus its holes."""
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y0:y1, x0:x1] = True
    for left, top, right, bottom in holes:
        mask[top:bottom, left:right] = False
    box = (x0 / WIDTH, y0 / HEIGHT, x1 / WIDTH, y1 / HEIGHT)
    return Segment(name, 0.9, box, Mask.encode(mask) if masked else None, not stuff)


def related(*segments, **options):
    perceived = Geometry(**options).perceive([PAGE], [Perception(segments=segments)])[0]
    return {(r.subject, r.predicate, r.object): r.score for r in perceived.relations}


def test_it_keeps_the_contract():
    check_expert(Geometry)


@pytest.mark.parametrize("masked", [True, False])
@pytest.mark.parametrize(
    ("small", "predicate"),
    [
        ((130, 90, 170, 130), "inside"),
        ((130, 30, 170, 60), "on"),
        ((130, 171, 170, 200), "touching"),
        ((208, 90, 240, 130), "next to"),
        ((250, 90, 290, 130), "right of"),
        ((10, 90, 50, 130), "left of"),
        ((130, 5, 170, 35), "above"),
        ((130, 200, 170, 230), "below"),
    ],
)
def test_each_predicate(small, predicate, masked):
    ball = segment("ball", *small, masked=masked)
    crate = segment("crate", 100, 60, 200, 170, masked=masked)
    for pair in ((ball, crate), (crate, ball)):
        found = related(*pair)
        assert list(found) == [("ball", predicate, "crate")]
        assert 0.6 < found["ball", predicate, "crate"] <= 1


def test_the_score_falls_with_the_angle_and_the_distance():
    crate = segment("crate", 10, 100, 60, 150)

    def score(x, y):
        return next(iter(related(segment("ball", x, y, x + 30, y + 30), crate, min_score=0).values()))

    assert score(100, 110) > score(250, 110) > 0.5
    assert score(100, 110) > score(120, 160) > score(130, 200)


def test_a_hole_in_the_mask_does_not_hide_what_is_inside():
    hole = (120, 80, 160, 120)
    frame = segment("frame", 100, 60, 200, 160, holes=[hole])
    assert list(related(segment("ball", *hole), frame)) == [("ball", "inside", "frame")]


def test_a_corner_of_a_box_is_not_the_object():
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    disc = (columns - 150) ** 2 + (rows - 120) ** 2 <= 80**2
    plate = Segment("plate", 0.9, (70 / WIDTH, 40 / HEIGHT, 231 / WIDTH, 201 / HEIGHT), Mask.encode(disc))
    crumb = segment("crumb", 72, 42, 82, 52)
    assert ("crumb", "inside", "plate") not in related(crumb, plate)


def room():
    cup, table, picture = (100, 90, 120, 110), (60, 110, 180, 180), (200, 20, 260, 60)
    person = (230, 80, 270, 200)
    wall = segment("wall", 0, 0, 320, 150, stuff=True, holes=[cup, table, picture, person])
    floor = segment("floor", 0, 150, 320, 240, stuff=True, holes=[table, person])
    names = {"cup": cup, "table": table, "picture": picture, "person": person}
    return [*(segment(name, *box) for name, box in names.items()), wall, floor]


def test_a_room_with_stuff():
    found = related(*room(), per_subject=3)
    expected = {("cup", "on", "table"), ("table", "on", "floor"), ("person", "on", "floor"), ("picture", "on", "wall")}
    assert expected <= set(found)
    assert not any(subject in ("wall", "floor") for subject, _, _ in found)


def test_a_pair_is_related_once_and_limits_hold():
    found = related(*room(), per_subject=9)
    pairs = [frozenset((subject, object_)) for subject, _, object_ in found]
    assert len(pairs) == len(set(pairs))
    assert len(related(*room(), per_subject=1)) == 4
    assert len(related(*room(), max_relations=2)) == 2
    scores = list(found.values())
    assert scores == sorted(scores, reverse=True)


def test_names_and_boxes_say_which_instances_are_meant():
    red = Segment("circle", 0.9, (0.1, 0.4, 0.2, 0.6), None, True, {"color": "red"})
    blue = Segment("square", 0.9, (0.5, 0.3, 0.9, 0.7), None, True, {"color": "blue"})
    (relation,) = Geometry().perceive([PAGE], [Perception(segments=(red, blue))])[0].relations
    assert (relation.subject, relation.predicate, relation.object) == ("red circle", "left of", "blue square")
    assert (relation.subject_box, relation.object_box) == (red.box, blue.box)


def test_an_object_found_by_two_experts_is_one():
    dog = Segment("dog", 0.9, (0.1, 0.1, 0.5, 0.5))
    perceived = Perception(segments=(dog,), detections=(Detection("puppy", 0.8, (0.1, 0.1, 0.5, 0.49)),))
    assert [thing.name for thing in collect(perceived, 60)] == ["dog"]
    assert Geometry().perceive([PAGE], [perceived])[0] == Perception()


def test_no_object_and_odd_pictures_give_nothing_or_something_valid():
    assert Geometry().perceive([PAGE], [Perception()])[0] == Perception()
    flat = Perception(detections=(Detection("a", 1.0, (0.0, 0.0, 0.0, 0.0)), Detection("b", 1.0, (1.0, 1.0, 1.0, 1.0))))
    for size in ((1, 1), (2000, 3), (3, 2000)):
        (relation,) = Geometry(min_score=0).perceive([Image.new("RGB", size)], [flat])[0].relations
        assert 0 <= relation.score <= 1


def test_proportions_of_the_picture_count():
    tall = Image.new("RGB", (100, 800))
    a, b = Detection("a", 1.0, (0.1, 0.4, 0.2, 0.42)), Detection("b", 1.0, (0.6, 0.6, 0.7, 0.63))
    (relation,) = Geometry().perceive([tall], [Perception(detections=(a, b))])[0].relations
    assert relation.predicate == "above"  # 40 pixels to the left, but 144 higher


def line(text, x0, y0, x1, y1):
    corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return TextLine(text, 0.9, tuple((x / WIDTH, y / HEIGHT) for x, y in corners))


def relations_of(perceived, **options):
    found = Geometry(**options).perceive([PAGE], [perceived])[0].relations
    return [(r.subject, r.predicate, r.object) for r in found]


def test_a_line_of_text_stands_in_relations_under_its_words():
    plate, exit_ = segment("plate", 20, 80, 120, 140), line("EXIT 42", 40, 100, 100, 120)
    perceived = Perception(segments=(plate,), texts=(exit_, TextLine("nowhere", 0.9)))
    (relation,) = Geometry().perceive([PAGE], [perceived])[0].relations
    assert (relation.subject, relation.predicate, relation.object) == ("EXIT 42", "inside", "plate")
    assert relation.subject_box == (40 / WIDTH, 100 / HEIGHT, 100 / WIDTH, 120 / HEIGHT)
    assert relations_of(perceived, texts=False) == []
    assert "ocr" in Geometry.requires


def test_a_sign_is_not_what_it_says():
    sign, words = segment("sign", 20, 80, 120, 110), line("STOP", 20, 80, 120, 110)
    assert [thing.name for thing in collect(Perception(segments=(sign,), texts=(words,)), 60)] == ["sign", "STOP"]
    assert [thing.name for thing in collect(Perception(segments=(sign,), texts=(words,)), 60, texts=False)] == ["sign"]


def grid():
    """A row of a, b and c; d stands below a, and a word below c."""
    return Perception(
        segments=(
            segment("a", 20, 20, 60, 60),
            segment("b", 120, 24, 160, 64),
            segment("c", 240, 16, 290, 66),
            segment("d", 22, 160, 62, 200),
            segment("sky", 0, 0, 320, 10, stuff=True),
        ),
        texts=(line("bread", 230, 110, 300, 134),),
    )


def test_aligned_only_names_the_nearest_in_row_and_column():
    assert relations_of(grid(), aligned_only=True) == [
        ("a", "left of", "b"),
        ("b", "left of", "c"),
        ("a", "above", "d"),
        ("c", "above", "bread"),
    ]
    assert relations_of(grid(), aligned_only=True, per_subject=1) == relations_of(grid(), aligned_only=True)
    assert relations_of(grid(), aligned_only=True, texts=False)[-1] == ("a", "above", "d")


def test_both_ways_says_each_pair_from_both_sides():
    once, twice = relations_of(grid(), aligned_only=True), relations_of(grid(), aligned_only=True, both_ways=True)
    other = {"left of": "right of", "above": "below"}
    assert set(twice) == {*once, *((o, other[p], s) for s, p, o in once)} and len(twice) == 2 * len(once)
    assert twice[:3] == [("b", "right of", "a"), ("d", "below", "a"), ("a", "left of", "b")]  # by object


def test_the_nearest_are_kept():
    assert relations_of(grid(), aligned_only=True, max_relations=2) == [("a", "left of", "b"), ("c", "above", "bread")]
    assert len(relations_of(grid(), aligned_only=True, both_ways=True, max_relations=3)) == 3


def test_things_out_of_line_or_in_each_other_are_not_aligned():
    corner = Perception(segments=(segment("a", 20, 20, 60, 60), segment("b", 100, 45, 140, 85)))
    inside = Perception(segments=(segment("a", 20, 20, 160, 160), segment("b", 60, 60, 100, 100)))
    assert relations_of(corner, aligned_only=True) == relations_of(inside, aligned_only=True) == []
    touching = Perception(segments=(segment("a", 20, 20, 60, 60), segment("b", 56, 20, 100, 60)))
    assert relations_of(touching, aligned_only=True) == [("a", "left of", "b")]  # boxes of an OCR engine have margins


def test_aligned_only_keeps_the_contract():
    check_expert(Geometry(aligned_only=True, both_ways=True))


def test_thirty_objects_take_milliseconds():
    random = np.random.default_rng(0)
    corners = [(int(x), int(y)) for x, y in zip(random.integers(0, 260, 30), random.integers(0, 180, 30), strict=True)]
    perceived = Perception(segments=tuple(segment(f"s{k}", x, y, x + 60, y + 60) for k, (x, y) in enumerate(corners)))
    geometry = Geometry()
    times = []
    for _ in range(5):
        start = time.process_time()
        geometry.perceive([PAGE], [perceived])
        times.append(time.process_time() - start)
    assert min(times) < 0.05  # about 6 ms; the slack is for slow machines


def pair_of(one, other, **options):
    boxes = [Detection(name, 0.9, tuple(v / 100 for v in box)) for name, box in (("a", one), ("b", other))]
    options = {"every_pair": True, **options}
    found = Geometry(**options).to_perception(Perception(detections=tuple(boxes)), (100, 100)).relations
    return [f"{r.subject} {r.predicate} {r.object}" for r in found]


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        ((10, 10, 30, 30), (60, 12, 80, 32), "a left of b"),
        ((10, 10, 30, 30), (12, 60, 32, 80), "a above b"),
        ((10, 10, 30, 30), (50, 60, 70, 80), "a above left of b"),
        ((60, 60, 80, 80), (10, 20, 30, 40), "a below right of b"),
        ((60, 10, 80, 30), (10, 60, 30, 80), "a above right of b"),
        ((10, 10, 90, 90), (30, 30, 50, 50), "b inside a"),
        ((40, 10, 60, 60), (20, 40, 90, 90), "a on b"),
        ((20, 40, 90, 90), (40, 10, 60, 60), "b on a"),
        ((10, 20, 60, 80), (40, 20, 90, 80), "a overlapping left of b"),
        ((30, 20, 60, 90), (45, 30, 90, 80), "a overlapping left of b"),
        ((30, 20, 60, 80), (25, 35, 65, 70), "a overlapping b"),
        ((10, 10, 30, 90), (31, 70, 90, 88), "a left of b"),
        ((10, 10, 30, 40), (50, 24, 90, 36), "a left of b"),
    ],
)
def test_every_pair_of_boxes_has_one_phrase(one, other, said):
    assert pair_of(one, other) == [said]


def test_every_pair_is_said_both_ways_where_there_is_a_word_for_it():
    assert pair_of((10, 10, 30, 30), (50, 60, 70, 80), both_ways=True)[1:] == ["b below right of a"]
    assert pair_of((10, 20, 60, 80), (40, 20, 90, 80), both_ways=True)[1:] == ["b overlapping right of a"]
    assert len(pair_of((10, 10, 90, 90), (30, 30, 50, 50), both_ways=True)) == 1


def test_every_pair_keeps_the_strongest_and_each_pair_of_names_first():
    places = {"a": [(0.1, 0.1), (0.2, 0.15)], "b": [(0.22, 0.3), (0.25, 0.3)], "c": [(0.8, 0.8)]}
    boxes = [(name, (x, y, x + 0.1, y + 0.1)) for name, corners in places.items() for x, y in corners]
    perceived = Perception(detections=tuple(Detection(name, 0.9, box) for name, box in boxes))
    geometry = Geometry(every_pair=True, max_relations=3)
    found = geometry.to_perception(perceived, (100, 100)).relations
    assert [{r.subject, r.object} for r in found] == [{"a", "b"}, {"b", "c"}, {"a", "c"}]
    assert found[0].score > found[1].score > found[2].score >= 0.3
    every = Geometry(every_pair=True).to_perception(perceived, (100, 100)).relations
    assert len(every) == 8  # of 10, two are of one name
    near = Geometry(every_pair=True, min_score=0.45).to_perception(perceived, (100, 100)).relations
    assert len(near) == 4 and {frozenset((r.subject, r.object)) for r in near} == {frozenset("ab")}


def test_every_pair_keeps_the_contract():
    check_expert(Geometry(every_pair=True, both_ways=True))
