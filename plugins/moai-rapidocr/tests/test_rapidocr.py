"""RapidOCR's output as text lines, pictures it could not bear, and the real engine with the weights of its wheel."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont

from moai.errors import AssetError, ExpertError
from moai.testing import check_expert
from moai.types import MAX_TEXT, Perception, TextLine, check_perception

plugin = pytest.importorskip("moai_rapidocr", reason="not installed: pip install -e plugins/moai-rapidocr")
LONGEST, SMALLEST, RapidOCR, fit = plugin.LONGEST, plugin.SMALLEST, plugin.RapidOCR, plugin.fit
SIZE = (320, 240)


def quad(x0, y0, x1, y1):
    """Corners as RapidOCR returns them."""
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], dtype=np.float64)


RECORDED = [
    (np.array([[37.0, 153.0], [264.0, 152.0], [264.0, 191.0], [37.0, 192.0]]), "PLATFORM 7", 0.99453),
    (np.array([[36.0, 45.0], [168.0, 45.0], [168.0, 94.0], [36.0, 94.0]]), "STOP", 0.99998),
]


def sign():
    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    pen.text((40, 40), "STOP", font=ImageFont.load_default(48), fill="black")
    pen.text((40, 150), "PLATFORM 7", font=ImageFont.load_default(36), fill="black")
    return image


def test_recorded_output_becomes_text_lines_in_reading_order():
    perceived = RapidOCR().to_perception(RECORDED, SIZE)
    check_perception(perceived)
    stop = TextLine("STOP", 1.0, ((0.1125, 0.1875), (0.525, 0.1875), (0.525, 0.3917), (0.1125, 0.3917)))
    platform = TextLine("PLATFORM 7", 0.9945, ((0.1156, 0.6375), (0.825, 0.6333), (0.825, 0.7958), (0.1156, 0.8)))
    assert perceived == Perception(texts=(stop, platform))
    assert type(perceived.texts[0].score) is float and type(perceived.texts[0].polygon[0][0]) is float


def test_doubtful_and_empty_lines_are_left_out():
    raw = [(quad(0, 50, 9, 60), "sure", 0.9), (quad(0, 0, 9, 9), "junk", 0.3), (quad(0, 0, 9, 9), "  ", 0.99)]
    assert [line.text for line in RapidOCR().to_perception(raw, SIZE).texts] == ["sure"]
    assert [line.text for line in RapidOCR(min_score=0.2).to_perception(raw, SIZE).texts] == ["junk", "sure"]
    assert RapidOCR().to_perception([], SIZE) == Perception()


def test_corners_in_the_padding_and_endless_text_are_clipped():
    perceived = RapidOCR().to_perception([(quad(-5, -3, 400, 250), "x" * 999, 1.0000001)], SIZE)
    check_perception(perceived)
    assert perceived.texts[0].polygon == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    assert len(perceived.texts[0].text) == MAX_TEXT and perceived.texts[0].score == 1.0


def test_an_ordinary_picture_is_given_as_it_is_blue_first():
    image = Image.new("RGB", (50, 40), (1, 2, 3))
    pixels, size = fit(image, 2000)
    assert size == (50, 40) and pixels.shape == (40, 50, 3) and pixels.dtype == np.uint8
    assert pixels[0, 0].tolist() == [3, 2, 1]


@pytest.mark.parametrize("size", [(1, 1), (4000, 1), (1, 4000), (2000, 20), (3000, 3000)])
def test_no_picture_is_a_sliver_or_too_large(size):
    pixels, kept = fit(Image.new("RGB", size, "white"), 1000)
    height, width = pixels.shape[:2]
    assert min(height, width) >= SMALLEST and max(height, width) <= max(1000, SMALLEST)
    assert max(height, width) <= LONGEST * min(height, width)
    assert kept[0] <= width and kept[1] <= height
    assert (pixels[: kept[1], : kept[0]] == 255).all() and pixels.sum() == 255 * 3 * kept[0] * kept[1]


def test_wrong_options_are_sentences():
    with pytest.raises(ExpertError, match="did you mean 'recognizer'"):
        RapidOCR(recogniser="x.onnx")
    with pytest.raises(ExpertError, match="min_score"):
        RapidOCR(min_score=2)


# --- the engine, with the weights in its wheel -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def loaded():
    """An expert with its models built, and the function that RapidOCR downloads with, made to fail the test."""
    pytest.importorskip("rapidocr", reason="RapidOCR is not installed: pip install -e plugins/moai-rapidocr")
    pytest.importorskip("onnxruntime", reason="ONNX Runtime is not installed: pip install onnxruntime")
    from rapidocr.utils.download_file import DownloadFile

    patch = pytest.MonkeyPatch()
    patch.setattr(DownloadFile, "_make_http_request", lambda *args: pytest.fail("RapidOCR wants to download"))
    expert = RapidOCR()
    expert.load()
    yield expert
    expert.unload()
    patch.undo()


def test_a_printed_sign_is_read_and_the_process_is_left_alone(loaded, capfd):
    import cv2

    before = cv2.getNumThreads()
    (perceived,) = loaded.perceive([sign()], [Perception()])
    assert [line.text for line in perceived.texts] == ["STOP", "PLATFORM 7"]
    assert all(line.score > 0.9 for line in perceived.texts)
    (x0, y0), _, (x1, y1), _ = perceived.texts[0].polygon
    assert (x0, y0, x1, y1) == pytest.approx((36 / 320, 45 / 240, 168 / 320, 94 / 240), abs=0.02)
    assert cv2.getNumThreads() == before
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("angle", [90, 180, 270])
def test_a_turned_sign_is_read_too(loaded, angle):
    (perceived,) = loaded.perceive([sign().rotate(angle, expand=True)], [Perception()])
    assert {line.text for line in perceived.texts} == {"STOP", "PLATFORM 7"}


def test_it_reads_what_the_engine_alone_reads(loaded):
    import rapidocr

    image = sign()
    theirs = rapidocr.RapidOCR(params={"Global.log_level": "critical"})(np.asarray(image)[:, :, ::-1])
    (ours,) = loaded.perceive([image], [Perception()])
    assert [line.text for line in ours.texts] == list(theirs.txts)
    assert [line.score for line in ours.texts] == pytest.approx(theirs.scores, abs=1e-3)
    corners = [[(x * SIZE[0], y * SIZE[1]) for x, y in line.polygon] for line in ours.texts]
    assert np.allclose(corners, theirs.boxes, atol=0.05)


def test_slivers_are_read_as_nothing(loaded):
    slivers = [Image.new("RGB", size, "white") for size in ((4000, 2), (2, 500), (1, 1))]
    assert loaded.perceive(slivers, [Perception()] * 3) == [Perception()] * 3


def test_a_line_on_a_long_strip_is_read(loaded):
    strip = Image.new("RGB", (1200, 60), "white")
    ImageDraw.Draw(strip).text((500, 12), "Exit 42 North", font=ImageFont.load_default(30), fill="black")
    expert = RapidOCR(min_side=256)
    expert.load()
    for image in (strip, strip.rotate(90, expand=True)):
        (perceived,) = expert.perceive([image], [Perception()])
        assert [line.text for line in perceived.texts] == ["Exit 42 North"]


def test_a_file_that_is_no_model_is_a_sentence(loaded, tmp_path):
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"not a model")
    with pytest.raises(AssetError, match=r"broken\.onnx is not a readable ONNX file"):
        RapidOCR(recognizer=str(broken)).load()
    with pytest.raises(AssetError, match=r"RapidOCR cannot use .*broken\.onnx"):
        RapidOCR(detector=str(broken)).load()
    with pytest.raises(AssetError, match=r"'none\.onnx' does not exist"):
        RapidOCR(recognizer="none.onnx").load()
    with pytest.raises(AssetError, match="carries no list of characters"):
        RapidOCR(recognizer=str(RapidOCR()._models(False)["Det"])).load()


def test_other_weights_have_another_identity(loaded):
    own = RapidOCR().weights_id()
    assert RapidOCR(min_score=0.1).weights_id() == own
    assert RapidOCR(recognizer=str(RapidOCR()._models(False)["Det"])).weights_id() != own


@pytest.mark.slow
def test_it_keeps_the_whole_contract(loaded):
    check_expert(RapidOCR(min_side=64))
