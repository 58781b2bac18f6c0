"""Annotation files of every format as an expert: found by name and by hash, strict about what is broken."""

from __future__ import annotations

import base64
import hashlib
import io
import json

import numpy as np
import pytest
from annotated import HEIGHT, WIDTH, coco, labels, perceive, picture, reason, write
from moai_precomputed import Precomputed
from moai_precomputed.labelme import to_perception as labelme
from moai_precomputed.lines import to_perception as line
from PIL import Image

import moai
from moai import Detection, Perceiver, Perception, Segment, Store
from moai.errors import ExpertError

# --- formats ---------------------------------------------------------------------------------------------------------


def test_coco_annotations_are_found_by_file_name(tmp_path):
    path = picture(tmp_path / "a.png")
    found = perceive(path, file=write(tmp_path / "coco.json", coco("b.png", "a.png")))
    assert found.detections == (Detection("dog", 1.0, (0.0, 0.0, 0.5, 0.5)),)
    assert [source.role for source in found.sources] == ["open_world"]


def test_coco_results_need_the_images_that_they_refer_to(tmp_path):
    path = picture(tmp_path / "a.png")
    about = write(tmp_path / "coco.json", coco("a.png"))
    results = [{"image_id": 0, "category_id": 9, "bbox": [20, 10, 20, 10], "score": 0.25}]
    file = write(tmp_path / "results.json", [*results, {**results[0], "score": 0.75}])
    found = perceive(path, file=file, images=about, min_score=0.5)
    assert found.detections == (Detection("cat", 0.75, (0.5, 0.5, 1.0, 1.0)),)
    assert "option 'images'" in reason(perceive(path, file=file))


def test_a_folder_of_labelme_files(tmp_path):
    path = picture(tmp_path / "pictures" / "a.png")
    shapes = [
        {"label": "roof", "points": [[0, 0], [20, 0], [20, 10], [0, 10]], "shape_type": "polygon"},
        {"label": "door", "points": [[30, 20], [20, 10]], "shape_type": "rectangle"},
    ]
    (tmp_path / "made").mkdir()
    data = {"shapes": shapes, "imagePath": "..\\pictures\\a.png", "imageWidth": WIDTH, "imageHeight": HEIGHT}
    write(tmp_path / "made" / "a.json", data)
    found = perceive(path, file=str(tmp_path))
    assert labels(found) == ["roof", "door"]
    assert found.segments[0].mask.decode()[:10, :20].all() and found.segments[0].mask.decode().sum() == 200
    assert found.detections[0].box == (0.5, 0.5, 0.75, 1.0)
    assert labels(perceive(path, file=str(tmp_path / "made" / "a.json"))) == ["roof", "door"]


def test_labelme_groups_circles_and_masks():
    half = [[0, 0], [10, 0], [10, 10], [0, 10]]
    other = [[20, 0], [30, 0], [30, 10], [20, 10]]
    pixels = io.BytesIO()
    Image.fromarray(np.full((4, 4), 255, np.uint8)).save(pixels, "PNG")
    shapes = [
        {"label": "car", "points": half, "group_id": 1},
        {"label": "car", "points": other, "group_id": 1},
        {"label": "car", "points": other, "group_id": None},
        {"label": "ball", "points": [[20, 10], [25, 10]], "shape_type": "circle"},
        {"label": "blob", "points": [[38, 2], [42, 6]], "shape_type": "mask",
         "mask": base64.b64encode(pixels.getvalue()).decode()},
        {"label": "nose", "points": [[20, 10]], "shape_type": "point"},
    ]  # fmt: skip
    found = labelme({"shapes": shapes}, WIDTH, HEIGHT)
    assert [s.label for s in found.segments] == ["car", "car", "ball", "blob"]
    car, single, ball, blob = found.segments
    assert car.mask.decode().sum() == 200 and single.mask.decode().sum() == 100
    assert car.box == (0.0, 0.0, 0.75, 0.5)
    assert ball.mask.decode().sum() == pytest.approx(np.pi * 25, rel=0.1)
    assert blob.mask.decode().sum() == 8 and blob.box == (0.95, 0.1, 1.0, 0.3)
    assert found.detections == (Detection("nose", 1.0, (0.5, 0.5, 0.5, 0.5)),)


def test_lines_with_lists_of_boxes(tmp_path):
    path = picture(tmp_path / "a.png")
    row = {
        "image": "a.png", "boxes": [[0, 0, 20, 10], [20, 10, 60, 20]], "labels": ["dog", "sign"], "scores": [0.9, 0.6],
        "masks": [{"size": [2, 2], "counts": [0, 1, 3]}, None],
        "texts": ["EXIT", {"text": "5 km", "score": 0.7, "box": [20, 10, 40, 20]}],
        "relations": [[0, "left of", 1], {"subject": "dog", "predicate": "on", "object": "grass", "score": 0.4}],
    }  # fmt: skip
    found = perceive(path, file=write(tmp_path / "found.jsonl", [row]))
    dog, sign = (0.0, 0.0, 0.5, 0.5), (0.5, 0.5, 1.0, 1.0)
    assert found.segments == (Segment("dog", 0.9, dog, moai.Mask(2, 2, (0, 1, 3))),)
    assert found.detections == (Detection("sign", 0.6, sign),)
    assert found.relations[0] == moai.Relation("dog", "left of", "sign", 1.0, dog, sign)
    assert found.relations[1] == moai.Relation("dog", "on", "grass", 0.4)
    assert [text.text for text in found.texts] == ["EXIT", "5 km"]
    assert found.texts[1].polygon == ((0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0))


def test_lines_may_be_normalized():
    row = {"normalized": True, "boxes": [[0.5, 0.5, 1.0, 1.0]], "labels": ["dog"]}
    assert line(row, WIDTH, HEIGHT).detections == (Detection("dog", 1.0, (0.5, 0.5, 1.0, 1.0)),)
    with pytest.raises(ExpertError, match='add "normalized": true'):
        line({**row, "normalized": False}, WIDTH, HEIGHT)


def test_what_moai_perceive_prints_is_read_again(tmp_path):
    path = picture(tmp_path / "a.png")
    mask = moai.Mask.encode(np.eye(4))
    known = Perception(
        segments=(Segment("dog", 0.9, (0.0, 0.0, 1.0, 1.0), mask, attributes={"color": "red"}),),
        texts=(moai.TextLine("EXIT", 0.8, ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0))),),
        notes={"tags": ("the picture shows a dog.",)},
    )
    size = {"width": WIDTH, "height": HEIGHT, "overlay": None}
    row = {"image": str(path), **size, **known.to_dict(), "verbalized": "red dog."}
    found = perceive(path, file=write(tmp_path / "found.jsonl", [row]))
    assert (found.segments, found.texts, found.notes) == (known.segments, known.texts, known.notes)
    row = json.loads(json.dumps(row))
    row["segments"][0] |= {"source": "shapes", "version": "1"}
    row["notes"] = [{"role": "tags", "text": "the picture shows a dog.", "source": "tags", "version": "1"}]
    again = perceive(path, file=write(tmp_path / "again.jsonl", [row]))
    assert again == found and again.segments[0].source == "precomputed"


# --- which picture ---------------------------------------------------------------------------------------------------


def test_names_with_folders_are_the_end_of_the_path(tmp_path):
    first, second = picture(tmp_path / "one" / "a.png"), picture(tmp_path / "two" / "a.png")
    rows = [{"image": f"{name}/a.png", "boxes": [[0, 0, 9, 9]], "labels": [name]} for name in ("one", "two")]
    file = write(tmp_path / "found.jsonl", rows)
    assert labels(perceive(first, file=file)) == ["one"] and labels(perceive(second, file=file)) == ["two"]
    third = picture(tmp_path / "three" / "a.png")
    assert f"'{third}' is not in {file}; it has 'one/a.png': set match=name" in reason(perceive(third, file=file))
    assert "described twice" in reason(perceive(third, file=file, match="name"))
    file = write(tmp_path / "one.jsonl", rows[:1])
    assert labels(perceive(third, file=file, match="name")) == ["one"]


def test_a_hash_finds_bytes_and_files_under_any_name(tmp_path):
    data = picture(tmp_path / "a.png", "red").read_bytes()
    other = picture(tmp_path / "a2.png", "blue")
    row = {"sha256": hashlib.sha256(data).hexdigest().upper(), "boxes": [[0, 0, 9, 9]], "labels": ["dog"]}
    file = write(tmp_path / "found.jsonl", [row])
    assert labels(perceive(data, file=file)) == ["dog"]
    assert labels(perceive(tmp_path / "a.png", file=file)) == ["dog"]
    assert "is not in" in reason(perceive(other, file=file))
    made = Image.new("RGB", (WIDTH, HEIGHT))
    assert "was made in memory" in reason(perceive(made, file=file))


def test_a_missing_picture_costs_itself_only(tmp_path):
    file = write(tmp_path / "coco.json", coco("a.png"))
    paths = [picture(tmp_path / name) for name in ("a.png", "b.png")]
    pictures = [moai.read_image(path) for path in paths]
    good, bad = Perceiver([Precomputed(file=file)]).perceive(pictures)
    assert labels(good) == ["dog"] and f"'{paths[1]}' is not in {file}" in reason(bad)
    _, empty = Perceiver([Precomputed(file=file, missing="empty")]).perceive(pictures)
    assert labels(empty) == [] and empty.sources


def test_several_files_are_joined(tmp_path):
    path = picture(tmp_path / "a.png")
    files = (
        write(tmp_path / "coco.json", coco("a.png")),
        write(tmp_path / "t.jsonl", [{"image": "a.png", "texts": ["X"]}]),
    )
    found = perceive(path, file=files)
    assert labels(found) == ["dog"] and found.texts[0].text == "X"


def test_equal_pictures_of_two_names_keep_their_own_findings_through_the_cache(tmp_path):
    rows = [{"image": f"{name}.png", "boxes": [[0, 0, 9, 9]], "labels": [name]} for name in "ab"]
    file, store = write(tmp_path / "found.jsonl", rows), Store(tmp_path / "cache")
    paths = [picture(tmp_path / "a.png"), picture(tmp_path / "b.png")]
    pictures = [moai.read_image(path) for path in paths]
    assert moai.images.image_key(pictures[0]) == moai.images.image_key(pictures[1])
    found = Perceiver([Precomputed(file=file)], store=store).perceive(pictures)
    assert [labels(one) for one in found] == [["a"], ["b"]]


def test_a_changed_file_is_noticed(tmp_path):
    path, store = picture(tmp_path / "a.png"), Store(tmp_path / "cache")
    file = write(tmp_path / "found.jsonl", [{"image": "a.png", "boxes": [[0, 0, 9, 9]], "labels": ["dog"]}])
    before = Precomputed(file=file).weights_id()
    perceiver = Perceiver([Precomputed(file=file)], store=store)
    assert labels(perceiver.perceive([moai.read_image(path)])[0]) == ["dog"]
    write(tmp_path / "found.jsonl", [{"image": "a.png", "boxes": [[0, 0, 9, 9]], "labels": ["kitten"]}])
    assert "has changed since it was opened" in reason(perceiver.perceive([moai.read_image(path)])[0])
    assert labels(perceive(path, store, file=file)) == ["kitten"]
    assert Precomputed(file=file).weights_id() != before


def test_the_role_serves_experts_that_require_it(tmp_path):
    path = picture(tmp_path / "a.png")
    file = write(tmp_path / "coco.json", coco("a.png"))
    assert [source.role for source in perceive(path, file=file, role="panoptic").sources] == ["panoptic"]


def test_names_lead_nowhere(tmp_path):
    path = picture(tmp_path / "a.png")
    secret = tmp_path / "secret.json"
    file = write(tmp_path / "coco.json", coco("../../../../etc/passwd", str(secret), "C:\\x\\b.png", "./a.png"))
    assert labels(perceive(path, file=file)) == ["dog"]


def test_repeated_annotations_count_once(tmp_path):
    path = picture(tmp_path / "a.png")
    [one] = coco("a.png")["annotations"]
    file = write(tmp_path / "coco.json", coco("a.png", annotations=[one, one, {**one, "category_id": 9}]))
    assert labels(perceive(path, file=file)) == ["dog", "cat"]


def test_without_a_file_it_says_so(tmp_path):
    assert "set its option 'file'" in reason(perceive(picture(tmp_path / "a.png")))
    assert "does not exist" in reason(perceive(tmp_path / "a.png", file="nowhere.json"))
    (tmp_path / "empty").mkdir()
    assert "has no JSON files" in reason(perceive(tmp_path / "a.png", file=str(tmp_path / "empty")))


def test_the_contract(tmp_path):
    path = picture(tmp_path / "a.png")
    file = write(tmp_path / "coco.json", coco("a.png"))
    moai.check_expert(Precomputed(file=file, missing="empty"), images=[moai.read_image(path)])
