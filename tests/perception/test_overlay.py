"""The overlay shows masks, boxes, arrows, texts and a legend, on pictures of any size."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from moai.errors import ImageError
from moai.perception.overlay import draw_overlay
from moai.perception.types import (
    Detection,
    Failure,
    Mask,
    Perception,
    Relation,
    Segment,
    Source,
    TextLine,
)

LEFT, RIGHT = (0.1, 0.4, 0.3, 0.6), (0.7, 0.4, 0.9, 0.6)


def picture(perception: Perception, size=(64, 64)) -> np.ndarray:
    """The overlay on grey, without its legend."""
    drawn = draw_overlay(Image.new("RGB", size, (128, 128, 128)), perception)
    return np.asarray(drawn)[: round(size[1] * 512 / max(size))].astype(int)


def changed(perception: Perception) -> np.ndarray:
    return (picture(perception) != picture(Perception())).any(axis=2)


def test_small_pictures_are_enlarged_and_huge_ones_reduced():
    small = draw_overlay(Image.new("RGB", (64, 32)), Perception())
    assert small.width == 512 and small.height > 256
    assert draw_overlay(Image.new("RGB", (4000, 10)), Perception()).width == 2048
    assert draw_overlay(Image.new("RGB", (1, 1)), Perception()).width == 512


def test_masks_are_tinted_and_nothing_else_inside_the_box():
    mask = np.zeros((64, 64), bool)
    mask[20:44, 20:32] = True
    drawn = changed(Perception(segments=(Segment("cat", 0.9, (0.25, 0.25, 0.75, 0.75), Mask.encode(mask)),)))
    assert drawn[200:340, 180:240].all()
    assert not drawn[200:340, 280:370].any()


def test_boxes_are_outlined_and_labelled():
    drawn = changed(Perception(detections=(Detection("dog", 0.9, (0.25, 0.5, 0.75, 0.75)),)))
    assert drawn[256, 150:370].all() and drawn[260:380, 128].all()
    assert drawn[235:250, 135:150].any()
    assert not drawn[300:350, 200:300].any()


def test_relations_are_arrows():
    arrow = Relation("a", "next to", "b", 0.9, LEFT, RIGHT)
    drawn = changed(Perception(relations=(arrow,)))
    assert all(drawn[245:268, x].any() for x in range(110, 400))
    back = Relation("b", "next to", "a", 0.9, RIGHT, LEFT)
    assert changed(Perception(relations=(arrow, back))).sum() > drawn.sum()


def test_texts_are_polygons():
    line = TextLine("EXIT", 0.9, ((0.2, 0.5), (0.8, 0.6), (0.8, 0.8), (0.2, 0.7)))
    drawn = changed(Perception(texts=(line,)))
    assert drawn[250:262, 102].any() and drawn[300:312, 409].any()


def test_what_has_no_place_is_in_the_legend():
    plain = draw_overlay(Image.new("RGB", (64, 64)), Perception(sources=(Source("a", "ocr", "1"),)))
    for extra in (
        {"texts": (TextLine("EXIT", 0.9),)},
        {"relations": (Relation("a", "on", "b", 0.9),)},
        {"notes": {"depth": ("near",)}},
        {"failures": (Failure("x", "not installed: " + "very " * 40),)},
        {"sources": (Source("a", "ocr", "1"), Source("b", "own", "1"))},
    ):
        more = draw_overlay(Image.new("RGB", (64, 64)), Perception(**{"sources": (Source("a", "ocr", "1"),), **extra}))
        assert more.height > plain.height, extra


def test_crowds_edges_and_hostile_labels_do_not_break_it():
    boxes = ((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0), (0.99, 0.0, 1.0, 0.01))
    seen = Perception(
        detections=tuple(Detection("word " * 50 + "\n" + "x" * 9, 0.5, box) for box in boxes * 20),
        relations=(Relation("a", "on", "a", 0.5, boxes[0], boxes[0]),),
        texts=(TextLine("日本\x00", 0.5, ((0.5, 0.5),)), *(TextLine("x" * 250, 0.1) for _ in range(60))),
    )
    assert draw_overlay(Image.new("RGB", (3, 200)), seen).height < 5000


def test_the_image_given_is_not_drawn_on():
    image = Image.new("RGB", (600, 600))
    draw_overlay(image, Perception(detections=(Detection("dog", 0.9, LEFT),)))
    assert not np.asarray(image).any()


def test_saving(tmp_path):
    path = tmp_path / "new" / "out.png"
    drawn = draw_overlay(Image.new("RGB", (64, 64)), Perception(), path)
    assert np.array_equal(np.asarray(Image.open(path)), np.asarray(drawn))
    with pytest.raises(ImageError, match="end the name in .png or .jpg"):
        draw_overlay(Image.new("RGB", (64, 64)), Perception(), tmp_path / "out.what")
    (tmp_path / "file").write_text("")
    with pytest.raises(ImageError, match="choose another path"):
        draw_overlay(Image.new("RGB", (64, 64)), Perception(), tmp_path / "file" / "out.png")
