"""The overlay shows masks, boxes, arrows, texts and a legend, on pictures of any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from PIL import Image, ImageDraw

import moai.perception.drawing.overlay as overlay
from moai.errors import ImageError
from moai.perception.drawing.fonts import Fonts
from moai.perception.drawing.labels import Label, write_labels
from moai.perception.drawing.legend import legend
from moai.perception.drawing.overlay import draw_overlay, strongest
from moai.types import (
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


def test_masks_are_outlined_and_keep_the_colours_inside():
    mask = np.zeros((64, 64), bool)
    mask[20:44, 20:32] = True
    drawn = changed(Perception(segments=(Segment("cat", 0.9, (0.3125, 0.3125, 0.5, 0.6875), Mask.encode(mask)),)))
    assert drawn[200:340, 160].all() and drawn[200:340, 255].all() and drawn[160, 180:240].all()
    assert not drawn[180:335, 180:240].any(), "the evidence keeps its colours"
    assert not drawn[200:340, 280:370].any()


def test_specks_of_a_mask_have_no_outline_and_a_mask_of_specks_has():
    mask = np.zeros((512, 512), bool)
    mask[100:300, 100:300] = True
    mask[400:480:16, 400:480:16] = True
    drawn = changed(Perception(segments=(Segment("sea", 0.9, (0.1, 0.1, 1.0, 1.0), Mask.encode(mask), False),)))
    assert drawn[150:250, 100].all() and not drawn[395:490, 395:490].any()
    specks = Segment("stars", 0.9, (0.7, 0.7, 1.0, 1.0), Mask.encode(mask & (np.arange(512) > 390)), False)
    assert changed(Perception(segments=(specks,)))[395:490, 395:490].any()


def test_boxes_are_outlined_and_labelled():
    drawn = changed(Perception(detections=(Detection("dog", 0.9, (0.25, 0.5, 0.75, 0.75)),)))
    assert drawn[256, 150:370].all() and drawn[260:380, 128].all()
    assert drawn[235:250].any() or drawn[385:410].any()
    assert not drawn[300:350, 200:300].any()


def test_relations_are_arrows():
    arrow = Relation("a", "next to", "b", 0.9, LEFT, RIGHT)
    drawn = changed(Perception(relations=(arrow,)))
    assert all(drawn[245:268, x].any() for x in range(160, 350)), "from edge to edge"
    assert not drawn[245:268, 60:150].any() and not drawn[245:268, 365:450].any()
    other = Relation("b", "next to", "c", 0.9, RIGHT, (0.4, 0.8, 0.5, 0.9))
    assert changed(Perception(relations=(arrow, other))).sum() > drawn.sum()


def grid(count: int) -> list[tuple]:
    places = [(x / 8, y / 8, x / 8 + 0.05, y / 8 + 0.05) for x in range(8) for y in range(8)]
    return places[:count]


def test_the_strongest_relations_are_drawn_and_the_legend_says_how_many():
    places = grid(12)
    found = tuple(Relation("a", f"r{i}", "b", i / 20, places[i], places[i + 1]) for i in range(11))
    seen = Perception(relations=found)
    assert [r.predicate for r in strongest(seen, 3)] == ["r10", "r9", "r8"]
    assert [text for text, _, _ in legend(seen, [], 3)] == ["drawn: the strongest 3 of 11 relations"]
    assert changed_by(seen, 0).sum() == 0 < changed_by(seen, 1).sum() < changed_by(seen, 11).sum()


def changed_by(perception: Perception, relations: int) -> np.ndarray:
    drawn = [
        np.asarray(draw_overlay(Image.new("RGB", (512, 512), (128, 128, 128)), p, None, relations))[:512]
        for p in (perception, Perception())
    ]
    return (drawn[0] != drawn[1]).any(axis=2)


def test_one_relation_between_two_places_and_none_of_a_text_with_itself():
    there = Relation("a", "left of", "b", 0.9, LEFT, RIGHT)
    back = Relation("b", "right of", "a", 0.8, RIGHT, LEFT)
    twice = Relation("EXIT", "inside", "EXIT", 1.0, LEFT, (0.1, 0.4, 0.3, 0.59))
    assert strongest(Perception(relations=(twice, back, there)), 5) == [there]


def test_the_legend_counts_by_expert_in_singular_and_plural():
    source = {name: Source(name, "ocr", "1") for name in ("easyocr", "rapidocr", "third")}
    found = Perception(
        texts=tuple(TextLine(text, 0.5, source="rapidocr") for text in "ab") + (TextLine("c", 0.5, source="third"),)
    )
    seen = replace(found, sources=(*source.values(), Source("tally", "count", "2")), notes={"count": ("one cat.",)})
    assert [text for text, _, role in legend(seen, [], 0) if role] == [
        "easyocr, version 1 (ocr): no text",
        "rapidocr, version 1 (ocr): 2 texts",
        "third, version 1 (ocr): 1 text",
        "tally, version 2 (count): 1 note",
    ]
    unsigned = Perception(texts=(TextLine("a", 0.5),), sources=(source["easyocr"], source["third"]))
    assert "1 text together with others of its role" in legend(unsigned, [], 0)[0][0]


@pytest.mark.parametrize("size", [(640, 427), (4000, 2667)])
@pytest.mark.parametrize("count", [2, 30])
def test_labels_cover_neither_each_other_nor_their_thing(monkeypatch, size, count):
    draws, things = [], grid(count)
    monkeypatch.setattr(
        "moai.perception.drawing.overlay.write_labels",
        lambda draw, canvas, labels, fonts, letters: (
            draws.append((pen := Rectangles(), labels, letters)) or write_labels(pen, canvas, labels, fonts, letters)
        ),
    )
    seen = Perception(detections=tuple(Detection(f"thing {i}", 0.5, box) for i, box in enumerate(things)))
    drawn = draw_overlay(Image.new("RGB", size), seen)
    [(pen, labels, letters)] = draws
    assert len(pen.drawn) == count and covering(pen.drawn) == 0
    assert sum(covering([spot, label.anchor]) for spot, label in zip(pen.drawn, labels, strict=True)) == 0
    assert letters >= 12 and letters / drawn.width > 1 / 75


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


class Rectangles:
    """Stands in for ImageDraw: keeps the labels' rectangles."""

    def __init__(self):
        self.drawn, self.lines, self.texts = [], 0, []

    def rectangle(self, spot, **_):
        self.drawn.append(spot)

    def line(self, *_, **__):
        self.lines += 1

    def text(self, _, text, **__):
        self.texts.append(text)


def covering(spots) -> int:
    pairs = [(a, b) for i, a in enumerate(spots) for b in spots[:i]]
    return sum(min(a[2], b[2]) > max(a[0], b[0]) and min(a[3], b[3]) > max(a[1], b[1]) for a, b in pairs)


def test_labels_do_not_cover_each_other_and_far_ones_have_a_line():
    pen = Rectangles()
    same = [Label((200, 200, 260, 230), f"object {i} 0.50", (200, 0, 0)) for i in range(30)]
    assert write_labels(pen, (512, 512), same, Fonts(), 12) == []
    assert len(pen.drawn) == 30 and covering(pen.drawn) == 0 and pen.lines > 0
    assert all(0 <= x0 and 0 <= y0 and x1 <= 512 and y1 <= 512 for x0, y0, x1, y1 in pen.drawn)


def test_labels_keep_off_small_things_that_others_are_about():
    lines = [(20, 20 + 18 * i, 200, 36 + 18 * i) for i in range(10)]
    pen = Rectangles()
    write_labels(pen, (512, 512), [Label(box, f"line {i}", (0, 200, 200)) for i, box in enumerate(lines)], Fonts(), 12)
    assert all(spot[0] >= 200 or covering([spot, box]) == 0 for spot in pen.drawn for box in lines)


def test_a_long_label_hides_no_part_of_a_tiny_thing():
    thing = (100, 100, 112, 112)
    pen = Rectangles()
    labels = [Label(thing, "person 0.75", (0, 200, 0)), Label((106, 106, 106, 106), "below 0.50", (250, 250, 250))]
    write_labels(pen, (512, 512), labels, Fonts(), 12)
    assert len(pen.drawn) == 2 and not any(covering([spot, thing]) for spot in pen.drawn)


def test_labels_without_a_free_place_become_numbers():
    pen = Rectangles()
    crowd = [Label((40, 40, 60, 60), f"object {i}", (200, 0, 0)) for i in range(60)]
    numbered = write_labels(pen, (128, 128), crowd, Fonts(), 12)
    assert numbered and numbered[-1] == (len(numbered), "object 59")
    assert pen.texts.count("object 0") == 1 and str(len(numbered)) in pen.texts
    seen = Perception(detections=tuple(Detection(f"object {i}", 0.5, (0.4, 0.4, 0.6, 0.6)) for i in range(120)))
    few = Perception(detections=seen.detections[:2])
    tall, short = (draw_overlay(Image.new("RGB", (64, 64)), p).height for p in (seen, few))
    assert tall > short + 100  # the numbers are explained in the legend


def test_detections_are_dashed_and_segments_solid():
    box = (0.25, 0.25, 0.75, 0.75)
    solid = picture(Perception(segments=(Segment("dog", 0.9, box),)))[383, 150:370]
    dashed = picture(Perception(detections=(Detection("dog", 0.9, box),)))[383, 150:370]
    assert len(np.unique(solid, axis=0)) == 1 and len(np.unique(dashed, axis=0)) == 2


def test_stuff_with_a_mask_has_no_box_and_its_label_is_on_it():
    mask = np.zeros((64, 64), bool)
    mask[:, :4] = mask[:4] = True
    sky = Segment("sky", 0.9, (0.0, 0.0, 1.0, 1.0), Mask.encode(mask), is_thing=False)
    drawn = changed(Perception(segments=(sky,)))
    assert not drawn[100:, 505:].any() and drawn[100:500, 26:36].any(axis=1).all() and drawn[5:500, 5:25].any()


def test_strips_get_a_margin_for_their_labels():
    cars = tuple(Detection(f"car {i}", 0.5, (i / 10, 0.1, i / 10 + 0.05, 0.9)) for i in range(10))
    strip = Image.new("RGB", (1000, 20), (90, 90, 90))
    assert draw_overlay(strip, Perception(detections=cars)).height > draw_overlay(strip, Perception()).height + 15
    drawn = np.asarray(draw_overlay(strip, Perception(detections=cars)))
    assert (drawn[10, [int(1000 * (i / 10 + 0.03)) for i in range(10)]] == 90).all()  # no label lies on a car


def test_the_margin_is_paper_and_never_black():
    seen = Perception(texts=(TextLine("EXIT", 0.9, ((0.1, 0.9), (0.9, 0.9), (0.9, 1.0), (0.1, 1.0))),))
    drawn = np.asarray(draw_overlay(Image.new("RGB", (512, 512), (250, 250, 250)), seen))
    assert not (drawn == 0).all(axis=2).all(axis=1).any()


def test_scripts_that_come_with_matplotlib_are_drawn():
    fonts = Fonts()
    for text in ("Ещё строка", "São açaí", "İğdır", "مرحبا", "Ωμέγα"):
        assert fonts.fit(text, 12)[0] == text
    assert fonts.missing_note() == ""


def test_what_no_font_has_is_said_in_the_legend():
    fonts = Fonts()
    shown, font = fonts.fit("ok \U000f0000 \u202eevil", 12)  # a private character, and one that turns the line round
    assert shown == "ok ? evil" and font.getlength(shown) > 0
    assert fonts.missing_note().startswith('"?" stands for characters that no installed font has (unnamed)')
    plain = draw_overlay(Image.new("RGB", (64, 64)), Perception(notes={"a": ("x",)}))
    lacking = draw_overlay(Image.new("RGB", (64, 64)), Perception(notes={"a": ("\U000f0000",)}))
    assert lacking.height > plain.height


def test_an_installed_font_is_found(monkeypatch):
    from moai.perception.drawing import fonts as overlay_font

    tables = {"latin.ttf": frozenset(range(128)), "cjk.otf": frozenset((*range(128), *map(ord, "日本")))}
    monkeypatch.setattr(overlay_font, "_paths", lambda: tuple(tables))
    monkeypatch.setattr(overlay_font, "_characters", tables.get)
    overlay_font._best.cache_clear()
    try:
        assert overlay_font._best(frozenset(map(ord, "a日本"))) == ("cjk.otf", frozenset())
        assert overlay_font._best(frozenset(map(ord, "日한"))) == ("cjk.otf", frozenset({ord("한")}))
        assert overlay_font._best(frozenset(map(ord, "한"))) == (None, frozenset({ord("한")}))
    finally:
        overlay_font._best.cache_clear()


def test_relation_arrows_end_in_a_head_at_the_object():
    drawn = picture(Perception(relations=(Relation("a", "on", "b", 0.9, LEFT, RIGHT),)))
    heights = [int((drawn[200:312, x] == 255).all(axis=1).sum()) for x in (300, 349)]
    assert heights[1] >= heights[0] + 4  # the head is higher than the shaft


def test_the_pen_draws_on_a_real_canvas():
    canvas = Image.new("RGB", (100, 100))
    overlay._Pen(ImageDraw.Draw(canvas), (100, 100), 12).box((0.1, 0.1, 0.1, 0.1), (255, 0, 0), "x", dashed=True)
    assert np.asarray(canvas).any()
