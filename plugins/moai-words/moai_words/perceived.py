"""Hold what experts say of one scene, as questions need it: names, numbers, cells, relations and absent names.

Knows: scenes after the experts' mistakes, and their perceptions.
"""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, replace
from functools import cached_property

from moai.types import Box, Perception
from moai_words.korean import COLORS as KOREAN_COLORS
from moai_words.names import COCO, Name, Vocabulary, same
from moai_words.relations import Fact, denials_of, facts_of
from moai_words.scene import COLORS, Scene, Thing, pick

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
ROWS, COLUMNS = ("top", "", "bottom"), ("left", "", "right")


@dataclass(frozen=True)
class Perceived:
    """Hold a scene as it is perceived.

    Attributes:
        scene: after mistakes.
        perception: what the experts say of it.
        known: the names of its part.
    """

    scene: Scene
    perception: Perception
    known: Vocabulary

    @cached_property
    def names(self) -> dict[str, Name]:
        """Label of a detection -> its name, with its colour."""
        return {thing.label: named(thing.name, thing.color) for thing in self.scene.things}

    @cached_property
    def numbers(self) -> Counter[str]:
        """How many detections each label has."""
        return Counter(thing.label for thing in self.scene.things)

    @cached_property
    def facts(self) -> list[Fact]:
        """All that follows from the relations."""
        return facts_of(self.perception.relations)

    @cached_property
    def denials(self) -> list[tuple[str, str, str]]:
        """All that the relations exclude."""
        return denials_of(self.perception.relations, self.facts)

    def things(self, label: str) -> list[Thing]:
        """List the detections of a label."""
        return [thing for thing in self.scene.things if thing.label == label]

    def cell(self, label: str) -> str | None:
        """Name the cell in which all detections of a label stand; None where they stand in several."""
        cells = {cell_of(thing.box) for thing in self.things(label)}
        return cells.pop() if len(cells) == 1 else None

    def tally(self, label: str) -> str:
        """Return the words in which a label is counted: "people" of "two people."."""
        number = NUMBERS[self.numbers[label]]
        *before, last = label.split()
        best = label
        for sentence in self.perception.notes.get("count", ()):
            first, *words = sentence.rstrip(".").split()
            if first == number and words[:-1] == before and words[-1][0] == last[0]:
                best = " ".join(words)
                if best.startswith(label):
                    break
        return best

    def absent(self, rng: random.Random, hard: float = 0.75) -> Name:
        """Draw a name that is not there, mostly one that is easily confused with what is; COCO's more often."""
        there = [*self.names.values(), *(thing.name for thing in self.scene.things), *self.scene.tags]
        for _ in range(30):
            base = rng.choice(there) if there and rng.random() < hard else None
            if base is None:
                names = [pick(rng, self.known)]
            else:
                base = self.known.names.get(base.text, base)
                names = self.known.close_to(base) if rng.random() < 0.6 else self.known.near_to(base)
                coco = [name for name in names if name.text in COCO] if rng.random() < 0.6 else []
                names = rng.sample(coco or names, min(len(coco or names), 8))
            names = [name for name in names if not any(same(name, other) for other in there)]
            if names:
                return rng.choice(names)
        return next(name for name in self.known.names.values() if not any(same(name, other) for other in there))


def named(name: Name, color: str) -> Name:
    """Return a name with a colour before it."""
    if not color:
        return name
    korean = f"{KOREAN_COLORS[color]} {name.korean}" if name.korean else ""
    text, plural = (f"{color} {word}" for word in (name.text, name.plural))
    return replace(name, text=text, plural=plural, korean=korean, synonyms=())


def other_color(rng: random.Random, thing: Thing, said: Perceived) -> Name | None:
    """Return the thing's name with a colour that none of that name has."""
    taken = {other.color for other in said.scene.things if other.name == thing.name}
    free = [color for color in COLORS if color not in taken]
    return named(thing.name, rng.choice(free)) if thing.color and free else None


def cell_of(box: Box) -> str:
    """Name the third by third of the picture in which a box's centre lies, as the style ``compact`` does."""
    row, column = (_third(box[axis] + box[axis + 2]) for axis in (1, 0))
    return f"{ROWS[row]} {COLUMNS[column]}".strip() or "center"


def _third(double: float) -> int:
    return 0 if 3 * double < 2 else 2 if 3 * double > 4 else 1
