"""What the shapes expert finds in drawings, and that it keeps the contract."""

from __future__ import annotations

import io

import numpy as np
import pytest
from moai_shapes import COLORS, Patch, Shapes, box_of, name_color
from PIL import Image, ImageDraw

from moai.testing import check_expert
from moai.types import check_perception

PAPER = (238, 244, 236)


def draw(size=(64, 64), paper=PAPER):
    """A picture four times as large to draw on; ``perceive`` shrinks it, so that edges are smooth."""
    image = Image.new("RGB", (size[0] * 4, size[1] * 4), paper)
    return image, ImageDraw.Draw(image)


def perceive(image, **options):
    small = image.resize((max(image.width // 4, 1), max(image.height // 4, 1)), Image.Resampling.BOX)
    return Shapes(**options).perceive([small], [])[0].segments


def named(segments):
    return {f"{s.attributes['color']} {s.label}" for s in segments}


def test_it_keeps_the_contract():
    check_expert(Shapes)


@pytest.mark.parametrize("side", [8, 12, 20, 40])
@pytest.mark.parametrize("label", ["circle", "rectangle", "triangle"])
def test_a_shape_of_any_size_is_named(label, side):
    image, pen = draw()
    x0, y0, x1, y1 = 5 * 4, 7 * 4, (5 + side) * 4, (7 + side) * 4
    if label == "circle":
        pen.ellipse((x0, y0, x1, y1), fill="red")
    elif label == "rectangle":
        pen.rectangle((x0, y0, x1, y1), fill="red")
    else:
        pen.polygon(((x0 + x1) / 2, y0, x1, y1, x0, y1), fill="red")
    (segment,) = perceive(image)
    assert (segment.label, segment.attributes) == (label, {"color": "red"})
    assert np.allclose(segment.box, np.array([5, 7, 5 + side, 7 + side]) / 64, atol=1.5 / 64)
    assert segment.score > 0.86 and segment.is_thing
    assert box_of(segment.mask.decode()) == segment.box


@pytest.mark.parametrize(
    ("name", "rgb"),
    {
        "black": (0, 0, 0),
        "gray": (128, 128, 128),
        "red": (255, 0, 0),
        "teal": (0, 128, 128),
        "green": (0, 255, 0),
        "brown": (165, 42, 42),
        "blue": (0, 0, 255),
        "yellow": (255, 255, 0),
    }.items(),
)
def test_the_colours_of_easy_vqa(name, rgb):
    image, pen = draw()
    pen.rectangle((40, 40, 140, 180), fill=rgb)
    assert named(perceive(image)) == {f"{name} rectangle"}


def test_colours_near_an_anchor_keep_its_name():
    for name, anchors in COLORS.items():
        for anchor in anchors:
            assert name_color(anchor) == name
            assert name_color(np.clip(np.array(anchor) + (4, -4, 4), 0, 255)) == name


def crowded():
    image, pen = draw((320, 240), (240, 240, 235))
    pen.rectangle((80, 80, 480, 400), fill="blue")
    pen.ellipse((180, 140, 360, 320), fill="yellow")
    pen.polygon((700, 80, 900, 400, 560, 400), fill="red")
    pen.polygon((200, 600, 400, 520, 480, 720, 280, 800), fill="orange")
    pen.ellipse((560, 560, 900, 720), fill="green")
    pen.regular_polygon((1100, 700, 120), 6, fill="black")
    return image


CROWD = {"blue rectangle", "yellow circle", "red triangle", "orange rectangle", "green shape", "black shape"}


def test_several_shapes_nested_turned_and_unsure():
    segments = perceive(crowded())
    assert named(segments) == CROWD
    assert all(s.score < 0.86 for s in segments if s.label == "shape")


def test_noise_and_a_gradient_change_nothing():
    pixels = np.asarray(crowded().resize((320, 240), Image.Resampling.BOX)).astype(float)
    noise = np.random.default_rng(0).normal(0, 4, pixels.shape)
    slope = np.linspace(0, 40, 320)[None, :, None]
    for changed in (pixels + noise, pixels - slope):
        image = Image.fromarray(np.clip(changed, 0, 255).astype(np.uint8))
        assert named(Shapes().perceive([image], [])[0].segments) == CROWD


def test_nothing_to_see_is_an_empty_perception():
    noise = np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    speck = Image.new("RGB", (64, 64), "white")
    speck.putpixel((30, 30), (0, 0, 0))
    for image in (Image.new("RGB", (1, 1)), Image.new("RGB", (64, 64), "red"), Image.fromarray(noise), speck):
        assert Shapes().perceive([image], [])[0].segments == ()


def test_touching_shapes_of_two_colours_are_two():
    image, pen = draw((200, 100), (255, 255, 255))
    pen.rectangle((80, 80, 319, 319), fill="red")
    pen.rectangle((320, 80, 560, 319), fill="blue")
    assert named(perceive(image)) == {"red rectangle", "blue rectangle"}


def test_a_large_picture_is_shrunk_and_boxes_stay_normalised():
    image = Image.new("RGB", (3000, 1500), "white")
    ImageDraw.Draw(image).rectangle((1500, 0, 2999, 749), fill="blue")
    (segment,) = Shapes().perceive([image], [])[0].segments
    assert np.allclose(segment.box, (0.5, 0.0, 1.0, 0.5), atol=0.01)
    assert max(segment.mask.width, segment.mask.height) == 640


def test_hairlines_and_scribbles_break_nothing():
    random = np.random.default_rng(0)
    for _ in range(60):
        width, height = (int(side) for side in random.integers(1, 90, 2))
        image = Image.new("RGB", (width, height), tuple(random.integers(0, 256, 3).tolist()))
        pen = ImageDraw.Draw(image)
        for thickness in (1, 1, 3):
            pen.line(random.integers(-9, 99, 4).tolist(), tuple(random.integers(0, 256, 3).tolist()), thickness)
        check_perception(Shapes(min_size=0.01, min_score=0).perceive([image], [])[0])


def textured(size=(256, 256)):
    """Something like a photograph: blotches of all sizes, with more contrast than colour."""
    random = np.random.default_rng(0)
    total = np.zeros((size[1], size[0], 3))
    mix = 0.3 * np.eye(3) + 0.7 / 3
    for cells in (4, 16, 64, 128):
        coarse = Image.fromarray(random.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        total += np.asarray(coarse.resize(size, Image.Resampling.BICUBIC)).astype(float) - 128
    return Image.fromarray(np.clip(128 + 0.7 * total @ mix, 0, 255).astype(np.uint8))


def pasted(shapes, background):
    """Draw ``(color, polygon)`` with smooth edges over a picture, then pass it through a JPEG file."""
    for color, points in shapes:
        mask = Image.new("L", (background.width * 4, background.height * 4))
        ImageDraw.Draw(mask).polygon([(4 * x, 4 * y) for x, y in points], fill=255)
        background.paste(color, (0, 0), mask.resize(background.size, Image.Resampling.BOX))
    file = io.BytesIO()
    background.save(file, "JPEG", quality=92, subsampling=0)
    return Image.open(file).convert("RGB")


def ring(x, y, radii, count, turn=0.0):
    angles = np.deg2rad(turn - 90 + 360 * np.arange(count) / count)
    return [
        (x + radii[k % len(radii)] * np.cos(a), y + radii[k % len(radii)] * np.sin(a)) for k, a in enumerate(angles)
    ]


ON_PHOTO = [
    ((220, 30, 40), ring(50, 40, [24], 72)),
    ((35, 80, 215), ring(200, 50, [30], 4, 50)),
    ((35, 165, 60), ring(60, 130, [28], 3, 9)),
    ((250, 220, 20), ring(190, 135, [26, 11], 10, 20)),
    ((140, 45, 175), [(40, 200), (120, 200), (120, 230), (40, 230)]),
]
SEEN_ON_PHOTO = ["red circle", "blue square", "green triangle", "yellow star", "purple rectangle"]


def test_flat_shapes_over_a_photograph_are_named_row_by_row():
    picture = pasted(ON_PHOTO, textured())
    segments = Shapes(background="photo").perceive([picture], [])[0].segments
    assert [f"{s.attributes['color']} {s.label}" for s in segments] == SEEN_ON_PHOTO
    for segment, (_, points) in zip(segments, ON_PHOTO, strict=True):
        box = np.concatenate((np.min(points, axis=0), np.max(points, axis=0))) / 256
        assert np.allclose(segment.box, box, atol=3 / 256) and segment.score >= 0.86
        assert box_of(segment.mask.decode()) == segment.box
    assert len(Shapes(background="photo", max_shapes=2).perceive([picture], [])[0].segments) == 2


def test_a_photograph_alone_shows_no_shapes():
    gray = textured().convert("L").convert("RGB")
    for picture in (textured(), gray, gray.resize((1, 1)), Image.new("RGB", (64, 64), "red")):
        assert Shapes(background="photo").perceive([picture], [])[0].segments == ()


def test_gray_white_and_cut_off_patches_are_no_shapes_on_a_photograph():
    shapes = [
        ((250, 250, 250), ring(60, 60, [28], 72)),
        ((20, 20, 20), ring(180, 60, [30], 4, 45)),
        ((220, 30, 40), ring(10, 180, [24], 72)),
    ]
    assert Shapes(background="photo").perceive([pasted(shapes, textured())], [])[0].segments == ()


def test_it_keeps_the_contract_on_photographs():
    check_expert(Shapes(background="photo"))


def test_drawings_are_the_default():
    assert Shapes().options.background == "plain"
    assert {s.label for s in perceive(crowded())} <= {"circle", "rectangle", "triangle", "shape"}  # published figures


def test_to_perception_needs_no_engine():
    mask = np.zeros((10, 20), dtype=bool)
    mask[2:6, 5:15] = True
    fits = {"circle": 0.2, "rectangle": 0.99, "triangle": 0.5}
    patches = [
        Patch(mask, fits, np.array([0, 0, 255])),
        Patch(mask, {**fits, "rectangle": 0.7}, np.zeros(3)),
        Patch(mask, {**fits, "rectangle": 0.4}, np.zeros(3)),
    ]
    sure, unsure, doubtful = Shapes().to_perception(patches).segments
    assert (sure.label, sure.score, sure.box) == ("rectangle", 0.99, (0.25, 0.2, 0.75, 0.6))
    assert (unsure.label, unsure.score, unsure.attributes) == ("shape", 0.7, {"color": "black"})
    assert doubtful.score == 0.5  # the triangle fits better than the rectangle now
    assert Shapes(min_score=0.6).to_perception(patches).segments == (sure, unsure)
