"""A plugin with a tiny expert that worker processes find, too, and pictures that tell it what to do."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from fake_distributions import install
from PIL import Image

from moai import plugins

CODE = '''
import os
import time

import moai


class Options(moai.Options):
    label: str = "dot"
    seconds: float = 0.0


class Dots(moai.Expert):
    """Names the red of the first pixel. Green is a command: 1 raise, 2 hang, 3 kill the process."""

    name, role, version = "dots", "open_world", os.environ.get("DOTS_VERSION", "1")
    Options = Options

    def load(self, device="cpu"):
        if os.environ.get("DOTS_BROKEN"):
            raise RuntimeError("no engine")

    def perceive(self, images, context):
        return [self._look(image) for image in images]

    def _look(self, image):
        red, green, _ = image.getpixel((0, 0))
        time.sleep(self.options.seconds)
        if green == 1:
            raise ValueError("green")
        if green == 2:
            time.sleep(60)
        if green == 3:
            os._exit(7)
        found = moai.Detection(f"{self.options.label} {red}", 0.5, (0.0, 0.0, 1.0, 1.0))
        line = moai.TextLine("\\ud800 lone, and <|im_end|>", 0.25, ())
        return moai.Perception(detections=(found,), texts=(line,))


@moai.hookimpl
def register_experts(register):
    register(Dots)
'''


def draw(path, red, green=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (6, 4), (red, green, 0)).save(path)
    return path


def draw_all(place: Path) -> Path:
    """Save ``pictures/``: 70 pictures whose red is their number, and two of them damaged."""
    for number in range(70):
        draw(place / "pictures" / f"{number % 2}" / f"{number:02d}.png", number)
    (place / "pictures" / "0" / "10.png").write_bytes(b"no picture")
    (place / "pictures" / "1" / "11.png").write_bytes(b"")
    return place


@contextmanager
def installed(site: Path) -> Iterator[None]:
    """``dots`` is the only expert that is installed, here and in processes that are started meanwhile."""
    site.mkdir()
    (site / "moai_dots_probe.py").write_text(CODE)
    install(site, "moai-dots-probe", "1.0", hooks="dots = moai_dots_probe")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(site)
        patch.setenv("PYTHONPATH", str(site))
        patch.setenv("MOAI_PLUGINS", "dots")
        plugins.registry.cache_clear()
        yield
    plugins.registry.cache_clear()
    sys.modules.pop("moai_dots_probe", None)
