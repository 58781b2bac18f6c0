"""Samples with drawn images and perceptions that name their colour, and a model that repeats what it is given."""

import pytest
from PIL import Image

from moai.types import Perception, Sample, Segment, Source

COLOURS = ("red", "green", "blue", "black")


def perception_of(colour, x=0.1):
    segment = Segment("circle", 0.9, (x, 0.1, 0.5, 0.5), attributes={"color": colour})
    return Perception(segments=(segment,), sources=(Source("fake", "panoptic", "1"),))


class Parrot:
    """Answers the colour it was told, or 'nothing'; keeps every call, taken apart: one image to each question."""

    def __init__(self):
        self.calls = []

    def answer(self, conversations, perceptions, max_new_tokens=8):
        images, given = [image for c in conversations for image in c.images], [p for row in perceptions for p in row]
        self.calls.append((images, [c.question for c in conversations], given, max_new_tokens))
        return ["nothing" if p is None else p.segments[0].attributes["color"] for p in given]


@pytest.fixture
def parrot():
    return Parrot()


@pytest.fixture
def samples(tmp_path):
    """Four images of one colour each; three questions per image."""
    for colour in COLOURS:
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{colour}.png")
    return [
        Sample.from_question(f"{colour}/{i}", tmp_path / f"{colour}.png", colour, f"question {i}?", colour, kind)
        for colour in COLOURS
        for i, kind in enumerate(("color", "color", "yes/no"))
    ]


@pytest.fixture
def perceptions():
    return {colour: perception_of(colour) for colour in COLOURS}
