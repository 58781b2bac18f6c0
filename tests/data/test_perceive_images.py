"""Perceiving any number of images in chunks."""

from __future__ import annotations

import pytest

from moai.data import perceive_images as module
from moai.data.perceive_images import perceive_images
from moai.expert import Expert
from moai.perception.running.perceiver import Perceiver
from moai.types import Detection, Perception


class Sizes(Expert):
    """Finds one object, named by the image's width."""

    name = "sizes"
    role = "open_world"
    version = "1"

    def __init__(self):
        super().__init__()
        self.batches = []

    def perceive(self, images, context):
        self.batches.append(len(images))
        return [Perception(detections=(Detection(f"w{image.width}", 1.0, (0.0, 0.0, 1.0, 1.0)),)) for image in images]


@pytest.fixture
def paths(tmp_path, picture):
    found = [tmp_path / f"{width}.png" for width in (10, 20, 30, 40)]
    for width, path in zip((10, 20, 30, 40), found, strict=True):
        picture.resize((width, 8)).save(path)
    return [found[0], tmp_path / "missing.png", *found[1:]]


@pytest.mark.parametrize(("chunk", "batches"), [(2, [1, 2, 1]), (64, [4])])
def test_results_come_in_order_and_an_unreadable_image_stops_nothing(paths, chunk, batches):
    expert = Sizes()
    results = list(perceive_images(Perceiver([expert]), paths, chunk=chunk))
    labels = [r.perception.detections[0].label if r.perception else "missing.png" in str(r.error) for r in results]
    assert labels == ["w10", True, "w20", "w30", "w40"] and expert.batches == batches
    assert [r.image.width if r.image else None for r in results] == [10, None, 20, 30, 40]


def test_a_chunk_too_large_for_memory_gives_the_same(paths, monkeypatch):
    monkeypatch.setattr(module, "CHUNK", 2)
    results = list(perceive_images(Perceiver([Sizes()]), paths, chunk=len(paths)))
    assert [r.image.width if r.image else None for r in results] == [10, None, 20, 30, 40]
