"""COCO annotations as perceptions and back, compared with pycocotools."""

from __future__ import annotations

import contextlib
import io
import json

import numpy as np
import pytest

from moai.errors import ExpertError
from moai.types import Detection, Mask, Perception, Segment, TextLine, mask_from_coco, mask_to_coco
from moai.types.rle import compress, decompress

WIDTH, HEIGHT = 40, 20
BLOB = Mask.encode(np.add.outer(np.arange(HEIGHT), np.arange(WIDTH)) % 7 < 3)
FOUND = Perception(
    segments=(
        Segment("dog", 0.75, (0.25, 0.5, 0.75, 1.0), BLOB, attributes={"color": "red"}),
        Segment("sky", 1.0, (0.0, 0.0, 1.0, 0.5), None, is_thing=False),
    ),
    detections=(Detection("cat", 0.5, (0.0, 0.0, 0.125, 0.25)),),
    texts=(TextLine("EXIT", 0.9),),
)


def test_there_and_back():
    written = FOUND.to_coco(WIDTH, HEIGHT, "a.png", image_id=4, first_id=9)
    assert json.loads(json.dumps(written)) == written
    assert [one["id"] for one in written["annotations"]] == [9, 10, 11]
    again = Perception.from_coco(written["annotations"], written["categories"], WIDTH, HEIGHT)
    assert (again.segments, again.detections) == (FOUND.segments, FOUND.detections)


def test_given_categories_keep_their_ids():
    ids = {"cat": 17, "dog": 18, "sky": 3, "unused": 5}
    written = FOUND.to_coco(WIDTH, HEIGHT, categories=ids)
    assert [one["category_id"] for one in written["annotations"]] == [18, 3, 17]
    assert {one["name"]: one["id"] for one in written["categories"]} == ids
    with pytest.raises(ExpertError, match="no id for 'cat'"):
        FOUND.to_coco(WIDTH, HEIGHT, categories={"dog": 1, "sky": 2})


def test_pycocotools_reads_what_is_written(tmp_path):
    coco = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    path = tmp_path / "found.json"
    written = FOUND.to_coco(WIDTH, HEIGHT, "a.png")
    path.write_text(json.dumps(written))
    with contextlib.redirect_stdout(io.StringIO()):
        read = coco.COCO(str(path))
        results = read.loadRes([one for one in written["annotations"] if "segmentation" in one])
    assert [read.cats[one["category_id"]]["name"] for one in read.loadAnns(read.getAnnIds(imgIds=1))] == [
        "dog", "sky", "cat",
    ]  # fmt: skip
    assert (read.annToMask(read.anns[1]).astype(bool) == BLOB.decode()).all()
    assert results.anns[1]["score"] == 0.75 and read.anns[1]["area"] == sum(BLOB.counts[1::2])


def test_what_pycocotools_encodes_is_read():
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    random = np.random.default_rng(0)
    for _ in range(60):
        height, width = random.integers(1, 60, 2)
        pixels = random.random((height, width)) < random.random()
        encoded = masks.encode(np.asfortranarray(pixels, dtype=np.uint8))
        assert compress(Mask.encode(pixels).counts) == encoded["counts"].decode()
        assert decompress(encoded["counts"].decode()) == list(Mask.encode(pixels).counts)
        read = mask_from_coco(encoded, width, height)  # its counts are bytes
        assert (read is None and not pixels.any()) or (read.decode() == pixels).all()


def test_polygons_cover_the_pixels_of_pycocotools():
    masks = pytest.importorskip("pycocotools.mask", reason="pycocotools is not installed")
    random = np.random.default_rng(1)
    for turn in range(150):
        width, height = (int(side) for side in random.integers(1, 60, 2))
        shapes = []
        for _ in range(random.integers(1, 3)):  # beyond the edges, with corners on pixels, and with corners twice
            points = random.random((random.integers(3, 12), 2)) * [1.4 * width, 1.4 * height] - [
                0.2 * width,
                0.2 * height,
            ]
            points = np.round(points) if turn % 3 == 0 else points
            shapes.append(
                np.concatenate([points, points[-1:]]).ravel().tolist() if turn % 5 == 0 else points.ravel().tolist()
            )
        theirs = masks.decode(masks.merge(masks.frPyObjects(shapes, height, width))).astype(bool)
        ours = mask_from_coco(shapes, width, height)
        assert (theirs == (ours.decode() if ours else np.zeros_like(theirs))).all(), (turn, shapes)


def test_a_square_without_pycocotools():
    mask = mask_from_coco([[0, 0, 4, 0, 4, 2, 0, 2]], 6, 3)
    assert mask == Mask.encode(np.pad(np.ones((2, 4)), ((0, 1), (0, 2))))
    assert mask_from_coco([[1.1, 1.1, 1.2, 1.1, 1.2, 1.2]], 6, 3) is None
    assert mask_from_coco(mask_to_coco(mask, 6, 3), 6, 3) == mask
    assert mask_from_coco(mask_to_coco(mask, 12, 6), 6, 3).decode().sum() == 32  # in the picture's size


def test_boxes_are_clipped_and_crowds_left_out():
    categories = [{"id": 1, "name": "person"}, {"id": 2, "name": "sky", "isthing": 0}]
    annotations = [
        {"category_id": 1, "bbox": [-4, 10, 24, 20]},
        {"category_id": 2, "bbox": [0, 0, 40, 10]},
        {"category_id": 1, "segmentation": {"size": [20, 40], "counts": [0, 200, 600]}, "iscrowd": 1},
    ]
    found = Perception.from_coco(annotations, categories, WIDTH, HEIGHT)
    assert found.detections == (Detection("person", 1.0, (0.0, 0.5, 0.5, 1.0)),)
    assert [(s.label, s.is_thing) for s in found.segments] == [("sky", False)]
    crowd = Perception.from_coco(annotations, categories, WIDTH, HEIGHT, crowds=True).segments[1]
    assert not crowd.is_thing and crowd.box == (0.0, 0.0, 0.25, 1.0)


@pytest.mark.parametrize(
    "categories, sentence",
    [
        ([{"id": 1}], "category 1 has no name"),
        ([{"name": "dog"}], "a category has an id and a name"),
        ([{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "two categories have the id 1"),
        (["dog"], "a category has an id and a name"),
    ],
)
def test_broken_categories_are_a_sentence(categories, sentence):
    with pytest.raises(ExpertError, match=sentence):
        Perception.from_coco([], categories, WIDTH, HEIGHT)
