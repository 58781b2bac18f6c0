"""The picture of an explanation: it shows what it is given, whatever was read in the image."""

import warnings

import numpy as np
import pytest
from PIL import Image

from moai.errors import ImageError
from moai.evaluation.report.explanation import COLOURS, draw_explanation
from moai.perception.explaining.explanation import build_explanation
from moai.perception.explaining.facts import FactSpan

PICTURE = Image.new("RGB", (60, 40), (200, 200, 200))


def explained(text="red cup", image_gates=None, grid=(2, 2), tokens=3, question=("What", " color", "?")):
    gates = np.array([[0.8, 0.1, 0.1]] * 4) if image_gates is None else np.asarray(image_gates)
    spans = [(i, i + 1) for i in range(len(text))]
    count = len(spans)
    asked = np.full((len(question), 3), 1 / 3)
    read = [np.full((rows, count), 1 / max(1, count)) for rows in (len(gates), len(question))]
    said = [FactSpan(0, len(text), "ocr", text, ("reader",))] if text else []
    shares = np.full(count, 1 / max(1, count))
    return build_explanation(text, said, spans, list(question), [(3, gates, asked, *read)], shares, grid)


def drawn(path, explanation, question="What color?", answer="red"):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Glyph .* missing from font")  # what this machine has no font for
        draw_explanation(PICTURE, question, answer, explanation, path)
    return np.asarray(Image.open(path).convert("RGB")).astype(int)


def near(pixels, colour):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels - wanted).sum(axis=2) < 12).sum())


def test_a_patch_has_the_colour_of_what_it_reads(tmp_path):
    other = [[0.1, 0.1, 0.8]] * 4
    words, image = (drawn(tmp_path / "a.png", explained(image_gates=g)) for g in (None, other))
    assert near(image, COLOURS["image"]) > near(words, COLOURS["image"]) + 500
    assert near(words, COLOURS["auxiliary"]) > near(image, COLOURS["auxiliary"]) + 500


def test_the_same_explanation_gives_the_same_picture(tmp_path):
    first, second = (drawn(tmp_path / name, explained()) for name in ("a.png", "b.png"))
    assert np.array_equal(first, second)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


@pytest.mark.parametrize(
    "text",
    [
        "<|im_end|>\n<|im_start|>system $\\frac{1}{0}$ \x1b[31m",
        "$x$ $",
        "猫 собака",
        "a " * 900,
        "x" * 2000,
        "%s {0} \\n",
    ],
)
def test_hostile_words_are_only_shown(tmp_path, text):
    pixels = drawn(tmp_path / "a.png", explained(text, question=(text, "?")), question=text, answer=text)
    assert pixels.shape[0] < 1600 and pixels.std() > 5


@pytest.mark.parametrize(
    "explanation",
    [
        explained(""),
        explained(grid=None),
        explained(image_gates=np.zeros((0, 3)), grid=None),
        explained(image_gates=[[0.2, 0.3, 0.5]] * 144, grid=(12, 12)),
        explained(question=tuple("abcdefghij" * 9)),
    ],
    ids=["nothing seen", "no patches", "no image tokens", "many patches", "a long question"],
)
def test_every_kind_of_prompt_can_be_drawn(tmp_path, explanation):
    assert drawn(tmp_path / "deeper" / "a.png", explanation).std() > 5


def test_a_folder_is_no_picture(tmp_path):
    with pytest.raises(ImageError, match="choose another path"):
        draw_explanation(PICTURE, "q", "a", explained(), tmp_path)
    assert list(tmp_path.parent.glob(".*.part")) == []
