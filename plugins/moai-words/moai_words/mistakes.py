"""Make the mistakes of experts: things missed, found twice, misnamed or misplaced, and letters misread.

Knows: scenes and random draws. What comes out is what the experts say; nobody who reads only that can know what was
there, so questions are answered by it.
"""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace
from types import MappingProxyType

from moai.types import Box
from moai_words.names import Name, same, vocabulary
from moai_words.printed import misread
from moai_words.scene import Line, Scene, Thing, around

RATES: Mapping[str, float] = MappingProxyType(
    {"missed": 0.08, "doubled": 0.05, "misnamed": 0.05, "misplaced": 0.15, "misread": 0.1}
)
"""How often: of all things, save for ``misread``, which is of all lines of print."""


def make_mistakes(rng: random.Random, scene: Scene, part: str, rates: Mapping[str, float]) -> Scene:
    """Return what experts find of a scene."""
    things: list[Thing] = []
    for thing in scene.things:
        if rng.random() < rates["missed"]:
            continue
        doubled = rng.random() < rates["doubled"]
        if rng.random() < rates["misnamed"]:
            thing = _misnamed(rng, thing, scene, part)
        if rng.random() < rates["misplaced"]:
            thing = replace(thing, box=_moved(rng, thing.box, 0.15))
        things.append(thing)
        if doubled:
            again = replace(thing, box=_moved(rng, thing.box, 0.05), score=round(thing.score * 0.8, 3))
            things.append(_misnamed(rng, again, scene, part) if rng.random() < 0.3 else again)
    lines = [_read(rng, line) if rng.random() < rates["misread"] else line for line in scene.lines]
    return replace(scene, things=tuple(things), lines=tuple(lines))


def _misnamed(rng: random.Random, thing: Thing, scene: Scene, part: str) -> Thing:
    """Give a thing the name of what it is easily confused with, if that is not there as well."""
    names: list[Name] = [other.name for other in scene.things]
    close = [n for n in vocabulary(part).close_to(thing.name) if not any(same(n, other) for other in names)]
    return replace(thing, name=rng.choice(close), color="") if close else thing


def _moved(rng: random.Random, box: Box, reach: float) -> Box:
    x0, y0, x1, y1 = box
    wide, high = x1 - x0, y1 - y0
    x, y = (x0 + x1) / 2 + rng.uniform(-reach, reach) * wide, (y0 + y1) / 2 + rng.uniform(-reach, reach) * high
    scale = [1 + rng.uniform(-reach, reach) for _ in range(2)]
    return around(rng, x, y, wide * scale[0], high * scale[1])


def _read(rng: random.Random, line: Line) -> Line:
    return replace(line, text=misread(rng, line.text))
