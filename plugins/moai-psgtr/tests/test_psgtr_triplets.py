"""Scores become relations: what is kept, what is one object, what is related once. Raw output written by hand."""

from __future__ import annotations

import numpy as np
import pytest
from moai_psgtr import PSGTR
from moai_psgtr.names import CLASSES, PREDICATES, THINGS, is_thing
from moai_psgtr.triplets import corners, softmax

from moai.types import Perception, check_perception

LEFT, RIGHT = (0.25, 0.5, 0.3, 0.8), (0.75, 0.5, 0.3, 0.8)  # cx, cy, w, h
NEAR_LEFT = (0.26, 0.5, 0.3, 0.8)


def logits(share, at, length):
    """Scores in which place ``at`` has ``share`` of the softmax, and the others the rest in equal parts."""
    row = np.full(length, np.log((1 - share) / (length - 1)))
    row[at] = np.log(share)
    return row


def query(subject, predicate, object_, score=0.9, sure=(0.9, 0.8), boxes=(LEFT, RIGHT)):
    return {
        "subject": logits(sure[0], CLASSES.index(subject), 134),
        "object": logits(sure[1], CLASSES.index(object_), 134),
        "predicate": logits(score, PREDICATES.index(predicate) + 1, 57),
        "subject_box": boxes[0],
        "object_box": boxes[1],
    }


def raw(*queries, masks=None):
    arrays = {name: np.array([q[name] for q in queries], dtype=np.float32) for name in queries[0]}
    if masks is not None:
        arrays |= {"masks": np.array(masks, dtype=np.float32), "mask_queries": np.arange(len(masks))}
    return arrays


def perceive(*queries, masks=None, **options):
    perceived = PSGTR(**options).to_perception(raw(*queries, masks=masks))
    check_perception(perceived)
    return perceived


def relations_of(perceived):
    return [(r.subject, r.predicate, r.object) for r in perceived.relations]


def test_names_are_in_the_published_order():
    assert (len(CLASSES), len(THINGS), len(PREDICATES)) == (133, 80, 56)
    assert (CLASSES[0], CLASSES[79], CLASSES[80], CLASSES[132]) == ("person", "toothbrush", "banner", "rug-merged")
    assert (PREDICATES[0], PREDICATES[46], PREDICATES[55]) == ("over", "riding", "leaning on")
    assert is_thing(79) and not is_thing(80)
    assert len(set(CLASSES)) == 133 and len(set(PREDICATES)) == 56


def test_a_triplet_becomes_a_relation_with_boxes():
    (relation,) = perceive(query("person", "riding", "horse")).relations
    assert (relation.subject, relation.predicate, relation.object) == ("person", "riding", "horse")
    assert relation.score == pytest.approx(0.9, abs=1e-5)
    assert relation.subject_box == pytest.approx((0.1, 0.1, 0.4, 0.9))
    assert relation.object_box == pytest.approx((0.6, 0.1, 0.9, 0.9))


@pytest.mark.parametrize(
    "weak", [{"score": 0.79}, {"sure": (0.49, 0.9)}, {"sure": (0.9, 0.49)}], ids=["predicate", "subject", "object"]
)
def test_weak_scores_are_left_out(weak):
    assert perceive(query("person", "riding", "horse", **weak)) == Perception()
    assert len(perceive(query("person", "riding", "horse", **weak), min_score=0.7, min_object_score=0.4).relations) == 1


def test_nothing_and_no_relation_are_never_said():
    nothing = query("person", "riding", "horse")
    nothing["subject"] = logits(0.99, 133, 134)
    none = query("person", "riding", "horse")
    none["predicate"] = logits(0.99, 0, 57)
    assert perceive(nothing, none) == Perception()


def test_the_last_class_is_kept():
    # OpenPSG compares numbers from 1 with the last number from 0 there, and loses the class before the last.
    assert relations_of(perceive(query("wall-other-merged", "beside", "rug-merged"))) == [
        ("wall-other-merged", "beside", "rug-merged")
    ]


def test_the_best_come_first_and_no_more_than_there_are_objects():
    queries = [
        query("person", word, "horse", score)
        for word, score in (("on", 0.85), ("riding", 0.95), ("holding", 0.9), ("touching", 0.82))
    ]
    assert relations_of(perceive(*queries)) == [("person", "riding", "horse"), ("person", "holding", "horse")]
    assert len(perceive(*queries, within_objects=False).relations) == 4
    assert relations_of(perceive(*queries, within_objects=False, max_relations=1)) == [("person", "riding", "horse")]


def test_one_person_found_twice_is_one():
    perceived = perceive(
        query("person", "riding", "horse", 0.9, sure=(0.8, 0.9)),
        query("person", "looking at", "dog", 0.85, sure=(0.95, 0.9), boxes=(NEAR_LEFT, (0.6, 0.8, 0.2, 0.2))),
    )
    first, second = perceived.relations
    assert first.subject_box == second.subject_box == corners(np.array(NEAR_LEFT))  # the surer finding's box


def test_two_people_stay_two():
    far = (0.85, 0.5, 0.2, 0.9)
    first, second = perceive(
        query("person", "riding", "horse"), query("person", "riding", "horse", 0.85, boxes=(far, RIGHT))
    ).relations
    assert first.subject_box != second.subject_box


def test_the_same_triplet_twice_is_said_once():
    again = query("person", "riding", "horse", 0.85, boxes=(NEAR_LEFT, RIGHT))
    (relation,) = perceive(query("person", "riding", "horse"), again).relations
    assert relation.score == pytest.approx(0.9, abs=1e-5)


def test_subject_and_object_of_one_triplet_are_two_things_even_when_they_embrace():
    perceived = perceive(query("person", "kissing", "person", boxes=(LEFT, NEAR_LEFT)))
    assert relations_of(perceived) == [("person", "kissing", "person")]


def test_stuff_is_one_and_not_beside_itself():
    assert perceive(query("tree-merged", "beside", "tree-merged")) == Perception()
    first, second = perceive(
        query("person", "in front of", "tree-merged"),
        query("horse", "in front of", "tree-merged", 0.85, boxes=(RIGHT, LEFT)),
    ).relations
    assert first.object_box == second.object_box


def half(side, value=6.0):
    mask = np.full((4, 8), -6.0)
    mask[:, slice(0, 4) if side == "left" else slice(4, 8)] = value
    return mask


def test_masks_become_segments_that_do_not_overlap():
    left, right = half("left"), half("right")
    right[:, 3] = 3.0  # claimed by both; the surer one gets it
    perceived = perceive(query("person", "on", "grass-merged"), masks=[(left, right)], segments=True)
    person, grass = perceived.segments
    assert (person.label, person.is_thing, person.score) == ("person", True, pytest.approx(0.9, abs=1e-5))
    assert (grass.label, grass.is_thing, grass.score) == ("grass-merged", False, pytest.approx(0.8, abs=1e-5))
    assert not (person.mask.decode() & grass.mask.decode()).any()
    assert person.box == (0, 0, 0.5, 1) and grass.box == (0.5, 0, 1, 1)
    (relation,) = perceived.relations
    assert (relation.subject_box, relation.object_box) == (person.box, grass.box)


def test_masks_decide_where_boxes_would_err():
    # The boxes say one person, the masks two; and the other way round.
    queries = [query("person", "riding", "horse"), query("person", "on", "horse", 0.85)]
    masks = [(half("left"), half("right")), (half("right"), half("right"))]
    assert len({r.subject_box for r in perceive(*queries).relations}) == 1
    assert len([s for s in perceive(*queries, masks=masks, segments=True).segments if s.label == "person"]) == 2
    apart = [query("person", "riding", "horse"), query("person", "on", "horse", 0.85, boxes=(RIGHT, RIGHT))]
    masks = [(half("left"), half("right"))] * 2
    assert len([s for s in perceive(*apart, masks=masks, segments=True).segments if s.label == "person"]) == 1


def test_pieces_of_stuff_are_joined():
    queries = [query("person", "on", "grass-merged"), query("horse", "on", "grass-merged", 0.85)]
    nowhere = np.full((4, 8), -6.0)
    perceived = perceive(*queries, masks=[(nowhere, half("left")), (nowhere, half("right"))], segments=True)
    (grass,) = perceived.segments
    assert grass.mask.decode().all() and grass.box == (0, 0, 1, 1)
    assert len(perceived.relations) == 2  # an object without a mask keeps the network's box
    assert perceived.relations[0].subject_box == corners(np.array(LEFT))


def test_the_mask_threshold_is_a_probability():
    faint = half("left", value=float(np.log(0.8 / 0.2)))
    queries = query("person", "on", "grass-merged")
    assert [s.label for s in perceive(queries, masks=[(faint, half("right"))]).segments] == ["grass-merged"]
    assert len(perceive(queries, masks=[(faint, half("right"))], mask_threshold=0.75).segments) == 2


def test_boxes_are_clipped():
    (relation,) = perceive(query("person", "on", "horse", boxes=((0.0, 0.5, 0.4, 1.4), RIGHT))).relations
    assert relation.subject_box == (0.0, 0.0, 0.2, 1.0)


def test_softmax_bears_large_numbers():
    assert softmax(np.array([[1e4, 0.0, -1e4]], dtype=np.float32)).tolist() == [[1.0, 0.0, 0.0]]
