"""Maps and rows of every numbering become the same regions, and fusing never mixes two of them up."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from moai_transformers import EoMT
from moai_transformers.classes import Classes
from moai_transformers.coco import PANOPTIC, STUFF, THINGS
from moai_transformers.fusing import box_of, fuse, index_map, regions
from transformers.models.eomt import image_processing_eomt
from transformers.models.mask2former import image_processing_mask2former

from moai.errors import ExpertError
from moai.types import Mask, Perception, Segment, check_perception

CLASSES = Classes({0: "person", 1: "car", 2: "sky"}, frozenset({2}))
# sky, person, sky, car, in columns: the case in which transformers gives person and car the same id
QUERIES = [(2, 0.9), (0, 0.8), (2, 0.95), (1, 0.7)]


def columns(ids, dtype=np.int32):
    return np.repeat(np.array([ids], dtype=dtype), 4, axis=0)


def rows(first):
    return [{"id": first + n, "label_id": label, "score": score} for n, (label, score) in enumerate(QUERIES)]


@pytest.mark.parametrize(
    ("first", "void", "dtype"),
    [(1, 0, np.int32), (0, -1, np.int64), (1, -1, np.float32)],
    ids=["mask2former", "eomt", "float"],
)
def test_every_numbering_gives_the_same_segments(first, void, dtype):
    ids = [first, first, first + 1, first + 2, first + 3, void, void, void]
    raw = {"segmentation": columns(ids, dtype), "segments_info": rows(first)}
    perceived = EoMT().to_perception(raw, CLASSES)
    check_perception(perceived)
    assert [(s.label, s.score, s.is_thing, s.box) for s in perceived.segments] == [
        ("sky", 0.95, False, (0.0, 0.0, 0.5, 1.0)),
        ("person", 0.8, True, (0.25, 0.0, 0.375, 1.0)),
        ("car", 0.7, True, (0.5, 0.0, 0.625, 1.0)),
    ]
    assert [s.mask.decode()[0].nonzero()[0].tolist() for s in perceived.segments] == [[0, 1, 3], [2], [4]]


def test_nothing_found_is_a_float_map_of_minus_one():
    raw = {"segmentation": np.full((4, 4), -1.0, np.float32), "segments_info": []}
    assert EoMT().to_perception(raw, CLASSES) == Perception()


def test_the_index_map_counts_from_one_and_leaves_void_at_zero():
    found = fuse(regions(columns([-1, 0, 1, 2, 3]), rows(0)), CLASSES.stuff)
    assert index_map(found, (4, 5))[0].tolist() == [0, 1, 2, 1, 3]
    assert index_map([], (2, 3)).tolist() == [[0] * 3] * 2


def test_two_things_of_one_class_stay_two():
    raw = [{"id": 1, "label_id": 0, "score": 0.9}, {"id": 2, "label_id": 0, "score": 0.8}]
    assert len(fuse(regions(columns([1, 2]), raw), CLASSES.stuff)) == 2


def test_rows_without_a_pixel_are_left_out_and_shared_ids_refused():
    assert [r.label_id for r in regions(columns([1, 1]), rows(1))] == [2]
    with pytest.raises(ExpertError, match="without label_ids_to_fuse"):
        regions(columns([1, 2]), [*rows(1), {"id": 2, "label_id": 1, "score": 0.9}])


def queries():
    """Mask probabilities and scores of the four queries, each sure of its own column."""
    masks = torch.full((4, 4, 4), 0.01)
    for number in range(4):
        masks[number, :, number] = 0.99
    labels, scores = zip(*QUERIES, strict=True)
    return masks, torch.tensor(scores), torch.tensor(labels)


def test_it_does_what_transformers_fusing_does_wrong():
    masks, scores, labels = queries()
    _, broken = image_processing_mask2former.compute_segments(masks.clone(), scores, labels, label_ids_to_fuse={2})
    ids = {row["label_id"]: row["id"] for row in broken}
    assert ids[0] == ids[1], "transformers no longer gives person and car one id: fusing could be left to it"
    ids, plain = image_processing_mask2former.compute_segments(masks.clone(), scores, labels, label_ids_to_fuse=set())
    found = fuse(regions(ids.numpy(), plain), CLASSES.stuff)
    assert index_map(found, (4, 4))[0].tolist() == [1, 2, 1, 3]


def test_it_equals_eomts_own_fusing():
    masks, scores, labels = queries()
    own, listed = image_processing_eomt.compute_segments(torch.logit(masks), scores, labels, stuff_classes=[2])
    ids, plain = image_processing_eomt.compute_segments(torch.logit(masks), scores, labels, stuff_classes=None)
    found = fuse(regions(ids.numpy(), plain), CLASSES.stuff)
    assert np.array_equal(index_map(found, (4, 4)) - 1, own.numpy())
    assert [region.label_id for region in found] == [row["label_id"] for row in listed]


def test_a_box_holds_its_mask_exactly():
    mask = np.zeros((10, 20), bool)
    mask[3:6, 4:5] = True
    assert box_of(mask) == (0.2, 0.3, 0.25, 0.6)
    assert box_of(np.ones((1, 1), bool)) == (0.0, 0.0, 1.0, 1.0)


def test_recorded_output_becomes_plain_segments():
    raw = {
        "segmentation": np.array([[0, 0], [-1, 1]]),
        "segments_info": [
            {"id": 0, "label_id": 119, "score": np.float32(0.987654)},
            {"id": 1, "label_id": 0, "score": 1.0000001},
        ],
    }
    names = dict(enumerate(PANOPTIC))
    perceived = EoMT().to_perception(raw, Classes(names, frozenset(range(80, 133))))
    check_perception(perceived)
    assert perceived.segments == (
        Segment("sky-other-merged", 0.987654, (0.0, 0.0, 1.0, 0.5), Mask(2, 2, (0, 1, 1, 1, 1)), False),
        Segment("person", 1.0, (0.5, 0.5, 1.0, 1.0), Mask(2, 2, (3, 1)), True),
    )


def test_the_names_are_cocos_eighty_and_fifty_three():
    assert (len(THINGS), len(STUFF), len(set(PANOPTIC))) == (80, 53, 133)
