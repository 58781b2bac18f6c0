"""Detections by OpenCV: tiny ONNX files whose findings are known, and what is refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx_writer import quadrants
from PIL import Image

import moai
from moai.errors import AssetError, ExpertError
from moai.testing import check_declaration, check_expert, check_options, check_registration_is_light
from moai.types import Detection, Perception, check_perception

plugin = pytest.importorskip("moai_opencv", reason="not installed: pip install -e plugins/moai-opencv")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install opencv-python-headless")
OpenCVDetector, SSDCoco = plugin.OpenCVDetector, plugin.SSDCoco
COLORS = ("red", "green", "blue")
SMALL = {"width": 64, "height": 64, "fit": "stretch"}


def colored(size=(200, 100), **quarters):
    """Draw a black picture with quarters (``top_left="red"``) in one colour each."""
    width, height = size
    image = Image.new("RGB", size)
    for place, color in quarters.items():
        x, y = (0 if "left" in place else width // 2), (0 if "top" in place else height // 2)
        image.paste(color, (x, y, x + width // 2, y + height // 2))
    return image


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """``files["yolo"]``, ``files["ssd"]``: detectors of coloured quarters."""
    folder = tmp_path_factory.mktemp("onnx")
    for layout in ("yolo", "ssd"):
        (folder / f"{layout}.onnx").write_bytes(quadrants(layout))
    return {layout: str(folder / f"{layout}.onnx") for layout in ("yolo", "ssd")}


@pytest.fixture(autouse=True)
def no_trial(request, monkeypatch):
    """The trial in a process of its own takes half a second each time: one test is about it."""
    if "trial" not in request.node.name:
        monkeypatch.setattr("moai_opencv.named_file.survive", lambda *given: None)


def detector(files, layout="yolo", **options):
    own = {"yolo": {"labels": COLORS}, "ssd": {"labels": ("red",), "first_class": 1}}[layout]
    return OpenCVDetector(**{"model": files[layout], "layout": layout, **SMALL, **own, **options})


def found(expert, *images):
    expert.load()
    perceived = expert.perceive(images, [Perception()] * len(images))
    for each in perceived:
        check_perception(each)
    return [each.detections for each in perceived]


def test_a_yolo_file_finds_each_thing_where_it_is_the_strongest_first(files):
    picture = colored(top_left="red", bottom_right=(0, 0, 204), top_right=(0, 153, 0))
    assert found(detector(files), picture) == [
        (
            Detection("red", 1.0, (0.0, 0.0, 0.5, 0.5)),
            Detection("blue", 0.8, (0.5, 0.5, 1.0, 1.0)),
            Detection("green", 0.6, (0.5, 0.0, 1.0, 0.5)),
        )
    ]


def test_an_ssd_file_counts_its_classes_from_one(files):
    assert found(detector(files, "ssd"), colored(top_right="red")) == [(Detection("red", 1.0, (0.5, 0.0, 1.0, 0.5)),)]


def test_scores_and_numbers_are_limited(files):
    picture = colored(top_left="red", bottom_right=(0, 0, 204), top_right=(0, 153, 0))
    assert [d.label for d in found(detector(files, min_score=0.7), picture)[0]] == ["red", "blue"]
    assert [d.label for d in found(detector(files, max_objects=1), picture)[0]] == ["red"]
    assert found(detector(files, min_score=1.0), colored()) == [()]


def test_with_margins_boxes_belong_to_the_picture(files):
    """Twice as wide as high: the picture takes the middle half of the input, its quarters half of each box."""
    assert found(detector(files, fit="pad", min_score=0.75), colored(top_left="red")) == [()]  # half red, half grey
    [[one]] = found(detector(files, fit="pad", min_score=0.4), colored(top_left="red"))
    assert (one.label, one.box) == ("red", (0.0, 0.0, 0.5, 0.5))
    assert one.score == pytest.approx(0.5 + 114 / 255 / 2, abs=0.01)


def test_numbers_and_order_of_the_input_are_the_options(files):
    blue_first = found(detector(files, rgb=False), colored(top_left="red"))
    assert [d.label for d in blue_first[0]] == ["blue"]
    shifted = found(detector(files, mean=(0, -51, 0), min_score=0.1), colored((64, 64)))
    assert {(d.label, d.score) for d in shifted[0]} == {("green", 0.2)}


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "I;16", "1", "P"])
def test_pictures_of_every_kind(files, mode):
    if mode == "I;16":
        image = Image.fromarray(np.full((60, 80), 65535, dtype=np.uint16))
    else:
        image = Image.new("RGB", (80, 60), "white").convert(mode)
    [perceived] = moai.Perceiver([detector(files)]).perceive([image])
    assert perceived.failures == ()
    assert {d.score for d in perceived.detections} == {1.0}  # white is red, green and blue at once


@pytest.mark.parametrize("size", [(1, 1), (1, 300), (3000, 1), (2, 2)])
@pytest.mark.parametrize("fit", ["pad", "stretch"])
def test_slivers(files, size, fit):
    (each,) = found(detector(files, fit=fit, min_score=0.1), Image.new("RGB", size, "white"))
    assert each and all(0 <= edge <= 1 for d in each for edge in d.box)


def test_a_large_picture_is_averaged_before_it_is_resized(files):
    """Every second column is red: bilinear resizing from 640 pixels alone would read columns of one colour only."""
    stripes = np.zeros((64, 640, 3), dtype=np.uint8)
    stripes[:, ::2, 0] = 255
    (each,) = found(detector(files, min_score=0.1), Image.fromarray(stripes))
    assert [d.score for d in each] == pytest.approx([0.5] * 4, abs=0.02) and len(each) == 4


def test_a_batch_gives_what_each_picture_gives_alone(files):
    pictures = [colored(top_left="red"), colored((30, 90), bottom_left="blue"), Image.new("RGB", (5, 5))]
    together = found(detector(files), *pictures)
    assert together == [found(detector(files), picture)[0] for picture in pictures]
    assert [len(each) for each in together] == [1, 1, 0]


ROWS = np.array(
    [
        [0, 1, 0.9, 0.10, 0.1, 0.50, 0.50],
        [0, 1, 0.8, 0.12, 0.1, 0.52, 0.50],  # the same thing once more: an overlap of 0.9
        [0, 2, 0.7, 0.10, 0.1, 0.50, 0.49],  # the same place under another name
        [0, 1, 0.6, -0.2, 0.6, 0.30, 1.30],
        [0, 1, 0.5, 1.10, 0.6, 1.30, 0.9],  # beside the picture
        [0, 0, 0.0, 0.00, 0.0, 0.00, 0.00],  # unused
    ],
    dtype=np.float32,
).reshape(1, 1, -1, 7)


@pytest.mark.parametrize(
    ("options", "scores"),
    [
        ({}, [0.9, 0.6]),
        ({"max_overlap_of_names": 1.0}, [0.9, 0.7, 0.6]),
        ({"max_overlap_of_names": 1.0, "max_overlap": 1.0}, [0.9, 0.8, 0.7, 0.6]),
        ({"min_score": 0.65}, [0.9]),
    ],
)
def test_doubles_go_and_boxes_are_clipped(options, scores):
    from moai_opencv.class_names import class_names
    from moai_opencv.network_input import Placement

    expert = OpenCVDetector(layout="ssd", **options)
    seen = expert.to_perception(ROWS, class_names(("dog", "cat"), 1), Placement())
    check_perception(seen)
    assert [d.score for d in seen.detections] == scores
    if not options:
        assert seen.detections[-1] == Detection("dog", 0.6, (0.0, 0.6, 0.3, 1.0))


def test_numbers_that_are_not_finite_are_a_sentence():
    from moai_opencv.class_names import class_names
    from moai_opencv.network_input import Placement

    rows = ROWS.copy()
    rows[0, 0, 3, 3] = np.nan
    with pytest.raises(ExpertError, match="not finite"):
        OpenCVDetector(layout="ssd").to_perception(rows, class_names(("dog", "cat"), 1), Placement())


# --- names of classes ------------------------------------------------------------------------------------------------


def test_coco_is_numbered_in_two_ways():
    from moai_opencv.class_names import class_names

    few, many = class_names("coco"), class_names("coco-91")
    assert (few.count, many.count) == (80, 91)
    assert [few[i] for i in (0, 11, 79)] == ["person", "stop sign", "toothbrush"]
    assert [many[i] for i in (1, 13, 17, 18, 44, 47, 62, 67, 90)] == (
        ["person", "stop sign", "cat", "dog", "bottle", "cup", "chair", "dining table", "toothbrush"]
    )
    assert many[0] is many[12] is many[83] is None
    with pytest.raises(ExpertError, match="found class 91, but its labels name 80 classes from 1 to 90"):
        many[91]


def test_labels_come_from_a_file_too(files, tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("\ufeffrouge\nvert  clair\nbleu\n", encoding="utf-8")
    (each,) = found(detector(files, labels=str(names)), colored(top_left="lime"))
    assert [d.label for d in each] == ["vert clair"]
    before = detector(files, labels=str(names)).weights_id()
    names.write_text("rosso\nverde\nblu\n")
    assert detector(files, labels=str(names)).weights_id() != before


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"labels": ("red", "green")}, r"1 x 7 x 4, where the layout 'yolo' is 1 x \(4 \+ C\) x N with 2 classes"),
        ({"labels": "cocoa"}, "neither a built-in list nor a file; did you mean 'coco'"),
        ({"labels": ()}, "there are no labels"),
        ({"labels": ("red", " ", "blue")}, "label 2 has 0 characters"),
        ({"labels": ("red", "x" * 300, "blue")}, "label 2 has 300 characters"),
        ({"output": "boxes"}, "has no output 'boxes', but 'output0' of 1 x 7 x 4"),
    ],
)
def test_labels_and_layouts_that_do_not_match_are_sentences(files, options, message):
    with pytest.raises(ExpertError, match=message):
        detector(files, **options).load()


def test_another_layout_is_a_sentence(files):
    with pytest.raises(ExpertError, match="1 x 7 x 4, where the layout 'ssd' is 1 x 1 x N x 7"):
        detector(files, "ssd", model=files["yolo"]).load()


def test_a_class_without_a_label_is_a_failure_of_that_picture(files):
    expert = detector(files, "ssd", first_class=0)
    [empty, seen] = moai.Perceiver([expert]).perceive([colored(), colored(top_left="red")])
    assert empty.failures == () and empty.detections == ()
    [failure] = seen.failures
    assert "found class 1, but its labels name 1 classes from 0 to 0" in failure.reason


# --- files that are no networks --------------------------------------------------------------------------------------


def broken_files():
    whole = quadrants("yolo")
    yield "cut.onnx", whole[: len(whole) // 2]
    yield "empty.onnx", b""
    yield "words.onnx", b"not a network"
    yield "words.pb", b"not a network"
    yield "unknown.onnx", whole.replace(b"AveragePool", b"AveragePoll")


def test_broken_files_are_sentences_and_say_nothing_else(files, tmp_path, capfd):
    before = cv2.getNumThreads(), getattr(cv2.utils, "logging", cv2).getLogLevel()
    for name, data in broken_files():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(AssetError) as caught:
            detector(files, model=str(tmp_path / name)).load()
        assert name in str(caught.value) and "\n" not in str(caught.value) and "OpenCV(" not in str(caught.value)
    assert capfd.readouterr() == ("", "")
    assert (cv2.getNumThreads(), getattr(cv2.utils, "logging", cv2).getLogLevel()) == before


def test_a_file_that_ends_the_process_is_a_sentence_by_the_trial(files, tmp_path):
    """An input that no layer gives: OpenCV 5.0.0 crashes in its reader, and other versions may refuse it."""
    path = tmp_path / "unconnected.onnx"
    path.write_bytes(quadrants("yolo").replace(b"\x06scores", b"\x06screws", 1))
    with pytest.raises(AssetError, match=r"OpenCV (crashes on|cannot read) .*unconnected\.onnx"):
        detector(files, model=str(path)).load()


def test_a_crash_of_the_trial_is_a_sentence_and_a_sound_file_passes(files, tmp_path, monkeypatch):
    from moai_opencv import trial

    trial.survive(Path(files["yolo"]), None, 64, 64)
    (tmp_path / "crash.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)\n")
    monkeypatch.setattr(trial, "PROCESS", tmp_path / "crash.py")
    with pytest.raises(AssetError, match=r"crashes on .*yolo\.onnx \(signal 11\); the file is damaged"):
        trial.survive(Path(files["yolo"]), None, 64, 64)


def test_files_of_another_kind_are_sentences(files, tmp_path):
    (tmp_path / "model.caffemodel").write_bytes(b"x")
    for options, message in (
        ({"model": ""}, "name an .onnx or .pb file in its option model"),
        ({"model": str(tmp_path / "none.onnx")}, "none.onnx' does not exist"),
        ({"model": str(tmp_path / "model.caffemodel")}, "must be an .onnx file, or a .pb file"),
        ({"model": str(tmp_path)}, "is a folder; name the file in it"),
        ({"config": files["yolo"]}, "an ONNX file, which has no configuration"),
        ({"width": 32}, "OpenCV cannot run a picture of 32 x 64 pixels"),
    ):
        with pytest.raises(AssetError, match=message):
            detector(files, **options).load()


def test_wrong_options_are_sentences():
    for options, message in (
        ({"min_scores": 0.4}, "did you mean 'min_score'"),
        ({"layout": "detr"}, "layout"),
        ({"scale": 0}, "scale"),
        ({"width": 0}, "width"),
    ):
        with pytest.raises(ExpertError, match=message):
            OpenCVDetector(**options)


# --- the contract ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [SSDCoco, OpenCVDetector])
def test_they_keep_the_declared_part_of_the_contract(kind):
    check_declaration(kind)
    check_options(kind)


def test_registering_imports_no_opencv():
    check_registration_is_light(SSDCoco)


def test_a_named_file_keeps_the_whole_contract(files):
    check_expert(detector(files))
