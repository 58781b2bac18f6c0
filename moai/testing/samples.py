"""Make the pictures and contexts that experts are checked on.

Knows: pictures that break careless code: uniform, one pixel, slivers, huge, grey, transparent. All of them are as
``read_image`` returns them, like every picture that an expert gets.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from moai.images import read_image
from moai.types import Detection, Mask, Perception, Relation, Segment, Source, TextLine, merge


def sample_images() -> list[Image.Image]:
    """Make RGB pictures: a scene, a uniform one, one pixel, a sliver, and the scene from grey and transparent files."""
    scene = draw_scene(160, 120)
    uniform = Image.new("RGB", (64, 64), (200, 210, 220))
    clear = scene.convert("RGBA")
    clear.putalpha(scene.convert("L").point(lambda value: 255 if value < 200 else 90))
    odd = [read_image(scene.convert("L")), read_image(clear)]
    return [scene, uniform, Image.new("RGB", (1, 1)), Image.new("RGB", (200, 3), "white"), *odd]


def huge_images() -> list[Image.Image]:
    """Make a picture of 12 million pixels, and one that is 500 times as wide as high."""
    return [draw_scene(4000, 3000), draw_scene(4000, 8)]


def sample_context(requires: Sequence[str]) -> Perception:
    """Make a perception of ``sample_images()[0]`` by experts of the roles in ``requires``."""
    mask = Mask.encode(_disc())
    parts = {
        "panoptic": Perception(
            segments=(
                Segment("circle", 0.95, (0.0625, 0.1667, 0.3188, 0.5083), mask, True, {"color": "red"}),
                Segment("rectangle", 0.9, (0.5, 0.25, 0.9438, 0.7583), None, True, {"color": "blue"}),
            )
        ),
        "open_world": Perception(detections=(Detection("ball", 0.7, (0.0625, 0.1667, 0.3188, 0.5083)),)),
        "scene_graph": Perception(relations=(Relation("red circle", "left of", "blue rectangle", 0.8),)),
        "ocr": Perception(texts=(TextLine("EXIT 42", 0.9, ((0.5, 0.3), (0.9, 0.3), (0.9, 0.6), (0.5, 0.6))),)),
    }
    found = [parts.get(role, Perception(notes={role: ("a note.",)})) for role in requires]
    return merge([*found, Perception(sources=tuple(Source("sample", role, "1") for role in requires))])


def draw_scene(width: int, height: int) -> Image.Image:
    """Draw a red disc and a blue rectangle on light grey, at any size."""
    image = Image.new("RGB", (160, 120), (240, 240, 235))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 20, 50, 60), fill="red")
    draw.rectangle((80, 30, 150, 90), fill="blue")
    return image.resize((width, height), Image.Resampling.NEAREST)


def _disc() -> np.ndarray:
    image = Image.new("L", (160, 120))
    ImageDraw.Draw(image).ellipse((10, 20, 50, 60), fill=1)
    return np.asarray(image)
