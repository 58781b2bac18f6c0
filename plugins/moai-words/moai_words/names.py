"""Hold the names of things: in which group, of which kind, in the plural and in Korean.

Knows: vocabulary only, read from the text files beside this one. A part is ``"train"``, ``"validation"`` or ``"test"``,
and no name of the last two is in another part.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cache
from importlib.resources import files

PARTS = ("train", "validation", "test")
UNRELATED = "things"  # the group whose members have nothing in common
NO_KIND = frozenset(  # names that end in the name of something else
    tuple(pair.strip().split(" > "))
    for pair in """
    hot dog > dog, teddy bear > bear, toy car > car, toy train > train, guinea pig > pig, sea lion > lion,
    trash can > can,
    baseball bat > bat, prairie chicken > chicken, Boston bull > bull, custard apple > apple,
    fire screen > screen,    window screen > screen, hair slide > slide, lens cap > cap, seat belt > belt,
    freight car > car, passenger car > car, waffle iron > iron, Dutch oven > oven, milk can > can
    """.split(",")
)
CATEGORIES = {  # word of a question -> groups; every group of animals is of animals
    "vehicle": {"road vehicles", "rail, water and air", "vehicles", "machines that drive"},
    "fruit": {"fruit", "orchard"},
    "vegetable": {"vegetables"},
    "drink": {"drinks"},
    "insect": {"insects", "flying insects", "beetles"},
    "bird": {"birds", "birds in general", "more birds", "garden birds", "water birds"},
    "piece of furniture": {"furniture", "room furniture", "home furniture"},
    "musical instrument": {"instruments", "wind and keys", "strings and skins"},
    "tool": {"tools", "hand tools", "builders' tools"},
    "piece of clothing": {"clothing", "outer clothing", "things to wear"},
}
COCO = frozenset(
    name.strip()
    for name in """
    person, bicycle, car, motorcycle, airplane, bus, train, truck, boat, traffic light, fire hydrant, stop sign,
    parking meter, bench, bird, cat, dog, horse, sheep, cow, elephant, bear, zebra, giraffe, backpack, umbrella,
    handbag, tie, suitcase, frisbee, skis, snowboard, sports ball, kite, baseball bat, baseball glove, skateboard,
    surfboard, tennis racket, bottle, wine glass, cup, fork, knife, spoon, bowl, banana, apple, sandwich, orange,
    broccoli, carrot, hot dog, pizza, donut, cake, chair, couch, potted plant, bed, dining table, toilet, tv,
    laptop, mouse, remote, keyboard, cell phone, microwave, oven, toaster, sink, refrigerator, book, clock, vase,
    scissors, teddy bear, hair drier, toothbrush
    """.split(",")
)
_HEAD = re.compile(r"\[([^<|\]]+?)(?: < ([^|\]]+?))?(?: \| (\w+))?\]")


@dataclass(frozen=True)
class Name:
    """Describe a name.

    Attributes:
        text: as an expert says it.
        plural: of the text.
        group: of names that are easily confused.
        area: of groups, related more loosely.
        kind: what every member of its group is; empty where there is nothing.
        korean: empty where it has none.
        synonyms: other words for the same, which questions use and experts do not.
    """

    text: str
    plural: str
    group: str
    area: str
    kind: str = ""
    korean: str = ""
    synonyms: tuple[str, ...] = ()

    @property
    def korean_or_text(self) -> str:
        """The name within a Korean sentence."""
        return self.korean or self.text


@dataclass
class Vocabulary:
    """Hold the names of one part, and find related ones."""

    names: dict[str, Name] = field(default_factory=dict)
    groups: dict[str, list[Name]] = field(default_factory=dict)
    areas: dict[str, list[Name]] = field(default_factory=dict)
    coco: list[Name] = field(default_factory=list)
    tags: list[Name] = field(default_factory=list)
    rest: list[Name] = field(default_factory=list)
    _close: dict[str, list[Name]] = field(default_factory=dict)
    _near: dict[str, list[Name]] = field(default_factory=dict)

    def enter(self, name: Name, is_tag: bool) -> None:
        """Add a name; ``is_tag`` for those of a classifier of whole pictures."""
        self.names[name.text] = name
        self.groups.setdefault(name.group, []).append(name)
        self.areas.setdefault(name.area, []).append(name)
        (self.coco if name.text in COCO else self.tags if is_tag else self.rest).append(name)

    def close_to(self, name: Name) -> list[Name]:
        """Return the other names of a name's group, which it may be confused with."""
        if name.text not in self._close:
            group = [] if name.group == UNRELATED else self.groups[name.group]
            self._close[name.text] = [other for other in group if not same(name, other)]
        return self._close[name.text]

    def near_to(self, name: Name) -> list[Name]:
        """Return the other names of a name's area."""
        if name.text not in self._near:
            self._near[name.text] = [other for other in self.areas[name.area] if other.text != name.text]
        return self._near[name.text]

    def kinds_of(self, name: Name) -> list[Name]:
        """Return what every thing of a name is besides: a robin is a bird, and a stop sign a sign."""
        known = (self.names.get(text) for text in sorted(_kinds(name.text, name.kind)))
        return [kind for kind in known if kind is not None]


def same(one: Name, other: Name) -> bool:
    """Return whether who says one may mean the other: equal, or one is a kind of the other."""
    return one.text == other.text or is_kind_of(one, other) or is_kind_of(other, one)


def is_kind_of(one: Name, other: Name) -> bool:
    """Return whether every ``one`` is an ``other``."""
    kinds = _kinds(one.text, one.kind)
    return bool(kinds) and (other.text in kinds or any(synonym in kinds for synonym in other.synonyms))


def categories_of(name: Name) -> tuple[str, ...]:
    """Return the words of questions such as "what animal ..?" that a name answers."""
    of_area = ("animal",) if name.area == "animals" else ()
    return (*of_area, *(word for word, groups in CATEGORIES.items() if name.group in groups))


@cache
def _kinds(text: str, kind: str) -> frozenset[str]:
    """What a name is a kind of: that of its group, and its last words, as a stop sign is a sign."""
    words = text.split()
    ends = {" ".join(words[at:]) for at in range(1, len(words))}
    return frozenset({*ends, *([kind] if kind else [])} - {part for whole, part in NO_KIND if whole == text})


@cache
def vocabulary(part: str) -> Vocabulary:
    """Read the names of a part."""
    found = Vocabulary()
    for file in ("names.txt", "imagenet.txt"):
        for name, of in _read(file):
            if of == part and name.text not in found.names:
                found.enter(name, file == "imagenet.txt")
    return found


def plural_of(text: str) -> str:
    """Form an English plural by rule; irregular ones stand in the file."""
    if re.search(r"(s|x|z|ch|sh)$", text):
        return f"{text}es"
    return f"{text[:-1]}ies" if re.search(r"[^aeiou]y$", text) else f"{text}s"


def _read(file: str) -> Iterator[tuple[Name, str]]:
    area = group = kind = ""
    part = "train"
    for line in files("moai_words").joinpath(file).read_text(encoding="utf-8").splitlines():
        if line.startswith("## "):
            area = line[3:]
        elif match := _HEAD.fullmatch(line):
            group, kind, part = match[1], match[2] or "", match[3] or "train"
        elif line and not line.startswith("#"):
            for entry in line.split(","):
                yield _name(entry.strip(), group, area, kind), part


def _name(entry: str, group: str, area: str, kind: str) -> Name:
    said, _, korean = entry.partition("=")
    said, *synonyms = said.split("~")
    text, _, plural = said.partition("/")
    return Name(text, plural or plural_of(text), group, area, kind, korean, tuple(synonyms))
