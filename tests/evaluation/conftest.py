"""Samples with drawn images and perceptions that name their colour, and a model that repeats what it is given."""

import pytest
from PIL import Image

from moai.types import Perception, Sample, Segment, Source

COLOURS = ("red", "green", "blue", "black")


def perception_of(colour, x=0.1):
    segment = Segment("circle", 0.9, (x, 0.1, 0.5, 0.5), attributes={"color": colour})
    return Perception(segments=(segment,), sources=(Source("fake", "panoptic", "1"),))


class Parrot:
    """Answers the colour it was told, or 'nothing'; keeps every call."""

    def __init__(self):
        self.calls = []

    def answer_batch(self, images, questions, perceptions, max_new_tokens=8):
        self.calls.append((list(images), list(questions), list(perceptions), max_new_tokens))
        return ["nothing" if p is None else p.segments[0].attributes["color"] for p in perceptions]


@pytest.fixture
def parrot():
    return Parrot()


@pytest.fixture
def samples(tmp_path):
    """Four images of one colour each; three questions per image."""
    for colour in COLOURS:
        Image.new("RGB", (4, 4), colour).save(tmp_path / f"{colour}.png")
    return [
        Sample(f"{colour}/{i}", tmp_path / f"{colour}.png", colour, f"question {i}?", colour, kind)
        for colour in COLOURS
        for i, kind in enumerate(("color", "color", "yes/no"))
    ]


@pytest.fixture
def perceptions():
    return {colour: perception_of(colour) for colour in COLOURS}
