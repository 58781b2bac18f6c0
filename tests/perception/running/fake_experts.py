"""Experts without engines, for the tests of the runner."""

from __future__ import annotations

import threading

import numpy as np
from PIL import Image

from moai.expert import Expert
from moai.types import Detection, Perception

WHOLE = (0.0, 0.0, 1.0, 1.0)
MB = 10**6
WAIT = 20.0  # seconds after which a test that hangs fails instead


class Base(Expert):
    """Finds one dog per image whose score is the red value; counts its calls."""

    name, role, version = "base", "open_world", "1"

    def __init__(self, **options):
        super().__init__(**options)
        self.loads, self.batches, self.contexts, self.unloads = [], [], [], 0

    def load(self, device="cpu"):
        self.loads.append(device)

    def unload(self):
        self.unloads += 1

    def perceive(self, images, context):
        self.batches.append(len(images))
        self.contexts.extend(context)
        return [self.look(image) for image in images]

    def look(self, image):
        return Perception(detections=(Detection("dog", image.getpixel((0, 0))[0] / 255, WHOLE),))


def expert(name: str, role: str = "open_world", **attributes) -> Base:
    return type(name, (Base,), {"name": name, "role": role, **attributes})()


class Heavy(Expert):
    """Allocates ``size`` bytes while it is loaded; counts the experts that are loaded at the same time."""

    role, version, size = "open_world", "1", 8 * MB
    loaded: set[str] = set()
    together = 0

    def __init__(self):
        super().__init__()
        self.events = []

    def load(self, device="cpu"):
        self.events.append(f"load {device}")
        self.weights = np.ones(self.size, np.uint8)
        Heavy.loaded.add(self.name)
        Heavy.together = max(Heavy.together, len(Heavy.loaded))

    def unload(self):
        self.events.append("unload")
        self.weights = None
        Heavy.loaded.discard(self.name)

    def perceive(self, images, context):
        self.events.append(len(images))
        return [Perception(notes={self.name: (f"{self.weights[0] * image.getpixel((0, 0))[0]}",)}) for image in images]


def heavy(name: str, role: str = "open_world", **attributes) -> Heavy:
    return type(name, (Heavy,), {"name": name, "role": role, **attributes})()


def reds(*values: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (value, 0, 0)) for value in values]


def failures(perception: Perception) -> dict[str, str]:
    return {failure.expert: failure.reason for failure in perception.failures}


def bad(look) -> Base:
    return expert("bad", look=look)


def dog(score=0.5, box=WHOLE, label="dog") -> Perception:
    return Perception(detections=(Detection(label, score, box),))


def meeting(name: str, barrier: threading.Barrier, **attributes) -> Heavy:
    def perceive(self, images, context):
        barrier.wait(WAIT)
        return [Perception() for _ in images]

    return heavy(name, perceive=perceive, **attributes)


def alone(name: str, busy: threading.Lock, met: threading.Event, seconds: float) -> Heavy:
    """Runs for ``seconds``, or until another call has met this one."""

    def perceive(self, images, context):
        if not busy.acquire(blocking=False):
            met.set()
            raise AssertionError("two calls at the same time")
        met.wait(seconds)
        busy.release()
        return [Perception() for _ in images]

    return heavy(name, perceive=perceive)
