"""A picture to ask about."""

import pytest


@pytest.fixture
def picture():
    """A 64 x 64 RGB picture of a red disc on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="red")
    return image
