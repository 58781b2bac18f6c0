"""Broken and hostile annotation files: a sentence for the picture or the file concerned, never a traceback."""

from __future__ import annotations

import json

import pytest
from annotated import CATEGORIES, HEIGHT, WIDTH, coco, labels, perceive, picture, reason, write
from moai_precomputed import Precomputed
from moai_precomputed.labelme import to_perception as labelme
from moai_precomputed.lines import to_perception as line

import moai
from moai import Perception
from moai.errors import ExpertError

FILES = [
    ("x.json", "{", "is no JSON"),
    ("x.json", "[" * 100_000, "is no JSON"),
    ("x.json", '{"a": 1}', "is in no known format"),
    ("x.json", json.dumps({"images": 5, "annotations": []}), "'images' is a list of objects"),
    ("x.json", json.dumps(coco("a.png", annotations={})), "'annotations' is a list"),
    ("x.json", json.dumps(coco("a.png", images=[{"id": 1, "file_name": "a"}, {"id": 1, "file_name": "b"}])), "id 1"),
    ("x.json", json.dumps(coco("a.png", categories=[*CATEGORIES, CATEGORIES[0]])), "two categories have the id 7"),
    ("x.json", json.dumps(coco("a.png", annotations=[{"image_id": 99}])), "image 99, which 'images' does not list"),
    ("x.json", json.dumps(coco("a.png", annotations=[{"image_id": 0, "segments_info": []}])), "is panoptic"),
    ("x.json", json.dumps(coco("")), "is the name of a file, not ''"),
    ("x.json", json.dumps(coco("../..")), "is the name of a file"),
    ("x.jsonl", "[1]", "line 1 is an object, not list"),
    ("x.jsonl", '{"image": "a.png"}\n{"image": ', "line 2 is no JSON"),
    ("x.jsonl", '{"boxes": []}', "line 1: a picture is the name of a file, not None"),
    ("x.jsonl", '{"sha256": "12"}', "sha256 is 64 hexadecimal digits"),
    ("x.jsonl", b"\xff\xfe{}", "line 1 is no JSON"),
]  # fmt: skip


@pytest.mark.parametrize("name, content, sentence", FILES)
def test_a_broken_file_is_one_sentence(tmp_path, name, content, sentence):
    path, file = picture(tmp_path / "a.png"), tmp_path / name
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    why = reason(perceive(path, file=str(file)))
    assert sentence in why and why.startswith("did not load: ExpertError") and "Traceback" not in why


ANNOTATIONS = [
    ({"bbox": [float("nan"), 0, 1, 1]}, "must be a finite number"),
    ({"bbox": [1, 1, -1, 1]}, "ends before it begins"),
    ({"bbox": [50, 0, 5, 5]}, "lies outside the 40 x 20 picture"),
    ({"bbox": ["1", 0, 5, 5]}, "must be a finite number, not '1'"),
    ({"bbox": [0, 0, 5]}, "must be 4 numbers"),
    ({"bbox": [0, 0, 10**400, 5]}, "must be a finite number"),
    ({}, "neither a bbox nor a region"),
    ({"bbox": [0, 0, 5, 5], "category_id": 1}, "category 1, which the categories do not list"),
    ({"bbox": [0, 0, 5, 5], "category_id": [7]}, "which the categories do not list"),
    ({"bbox": [0, 0, 5, 5], "score": 97.0}, "must be in \\[0, 1\\], not 97.0"),
    ({"segmentation": [[0, 0, 5, 5]]}, "at least three points"),
    ({"segmentation": [[0, 0, 5, 5, 1e9, 9]]}, "leads far out of the 40 x 20 picture"),
    ({"segmentation": {"size": [20, 40], "counts": [799]}}, "add up to 799 and not to 20 x 40"),
    ({"segmentation": {"size": [20, 40], "counts": [900, -100]}}, "add up to 800 and not"),
    ({"segmentation": {"size": [20, 40], "counts": "PPP"}}, "ends in the middle of a number"),
    ({"segmentation": {"size": [20, 40], "counts": "\u00e9"}}, "which COCO's strings do not"),
    ({"segmentation": {"size": [10**9, 10**9], "counts": [10**18]}}, "a mask of 1000000000 x 1000000000 pixels"),
    ({"segmentation": {"size": [20, 40]}}, "run lengths are a list or a string, not None"),
    ({"segmentation": "mask.png"}, "is a list of polygons"),
]


@pytest.mark.parametrize("annotation, sentence", ANNOTATIONS)
def test_a_broken_annotation_costs_its_picture_only(tmp_path, annotation, sentence):
    paths = [picture(tmp_path / name) for name in ("a.png", "b.png")]
    good, other = coco("a.png", "b.png")["annotations"]
    broken = {"id": 5, "image_id": 1, "category_id": 7, **annotation}
    file = write(tmp_path / "coco.json", coco("a.png", "b.png", annotations=[good, other, broken]))
    expert = Precomputed(file=file)
    expert.load()
    assert labels(expert.perceive([moai.read_image(paths[0])], [Perception()])[0]) == ["dog"]
    with pytest.raises(ExpertError, match=rf"coco.json, image 1: annotation 5: .*{sentence}"):
        expert.perceive([moai.read_image(paths[1])], [Perception()])


LINES = [
    ({"boxes": [[0, 0, 9, 9]]}, "1 boxes and 0 labels"),
    ({"boxes": [[0, 0, 9, 9]], "labels": ["a"], "scores": [1, 1]}, "1 boxes and 2 scores"),
    ({"boxes": {"a": 1}}, "'boxes' is a list"),
    ({"boxes": [[0, 0, 9, 9]], "labels": ["a"], "score": [1]}, "it has 'score'; did you mean 'scores'"),
    ({"bbox": [[0, 0, 9, 9]]}, "it has 'bbox'; did you mean 'boxes'"),
    ({"relations": [[0, "on", 1]]}, "numbers of boxes from 0, not 0"),
    ({"relations": ["on"]}, "a relation is"),
    ({"texts": [5]}, "a line of text is a string"),
    ({"texts": [{"text": "a", "polygon": [[1, 1], [2, 2]]}]}, "at least three points"),
    ({"segments": [{"label": "a"}]}, "no perception as moai writes it"),
    ({"detections": 5}, "'detections' is a list"),
    ({"detections": [5]}, "a finding is an object, not 5"),
    ({"notes": {"tags": "a"}}, "notes are lists of sentences"),
    ({"width": 40, "height": 0}, "whole numbers of pixels, not 0"),
    ({"width": 20, "height": 40}, "was annotated, and this one is 40 x 20 \\(turned"),
    ({"error": "cannot be read"}, "there it says: cannot be read"),
]


@pytest.mark.parametrize("row, sentence", LINES)
def test_a_broken_line_is_one_sentence(row, sentence):
    with pytest.raises(ExpertError, match=sentence):
        line(row, WIDTH, HEIGHT)


def test_wrong_types_that_no_rule_names_are_failures_too(tmp_path):
    path = picture(tmp_path / "a.png")
    file = write(tmp_path / "found.jsonl", [{"image": "a.png", "boxes": [[0, 0, 9, 9]], "labels": [5]}])
    assert "labels and texts must be non-empty strings, not 5" in reason(perceive(path, file=file))


SHAPES = [
    ({"points": [[0, 0], [1, 1], [2, 2]]}, "shape 0 has no label"),
    ({"label": "a", "points": [[0, 0], [9, 9]]}, "at least three points"),
    ({"label": "a", "points": "x"}, "its points are a list"),
    ({"label": "a", "points": [[0, None]] * 3}, "must be a finite number, not None"),
    ({"label": "a", "points": [[0, 0], [9, 9]], "shape_type": "mask", "mask": "!"}, "no PNG in base64"),
    ({"label": "a", "points": [[0, 0], [9, 9]], "shape_type": "mask", "mask": "AAAA"}, "not an image"),
]


@pytest.mark.parametrize("shape, sentence", SHAPES)
def test_a_broken_shape_is_one_sentence(shape, sentence):
    with pytest.raises(ExpertError, match=sentence):
        labelme({"shapes": [shape]}, WIDTH, HEIGHT)
