"""The demo picture is the same every time and shows what the docs say."""

from __future__ import annotations

import numpy as np

from moai.data.demo import SIZE, demo_picture


def test_the_same_pixels_every_time():
    first, second = demo_picture(), demo_picture()
    assert first.mode == "RGB" and first.size == SIZE
    assert first.tobytes() == second.tobytes()


def test_words_and_shapes_are_there():
    pixels = np.asarray(demo_picture())
    for rgb, least in {(0, 110, 50): 8000, (0, 0, 255): 4000, (255, 255, 0): 1500, (255, 0, 0): 3000}.items():
        assert (pixels == rgb).all(-1).sum() > least
    sign = pixels[17:76, 61:260].astype(int)
    letters = (sign[..., 0] > 200).mean()
    assert 0.05 < letters < 0.4
