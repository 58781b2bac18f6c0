"""Ask questions about what experts say of a scene; an answer is in their words, or "yes", "no" or "none".

Knows: what is said. Which of the possible questions are asked is drawn so that answers are balanced: as many "yes" as
"no" in each kind, numbers from zero to six, places.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterator
from typing import NamedTuple

from moai_words.names import Name, categories_of
from moai_words.perceived import NUMBERS, Perceived, cell_of, other_color
from moai_words.printed import draw_line, misread
from moai_words.relations import DIRECTIONS, Fact, phrase_of, subjects

KINDS = ("existence", "count", "position", "relation", "text", "attribute", "identity", "absent")
NONE = ("none", "nothing", "no")
SIDES = ("left", "right", "top", "bottom")
ACROSS, DOWN = ("left", "center", "right"), ("top", "center", "bottom")
AT = {"top": "at the top", "bottom": "at the bottom", "center": "in the center"}
ALSO = {"center": ("middle", "centre"), "grey": ("gray",)}
ALSO |= {f"top {side}": (f"upper {side}", f"{side} top") for side in ("left", "right")}
ALSO |= {f"bottom {side}": (f"lower {side}", f"{side} bottom") for side in ("left", "right")}
ALSO |= {"left": ("left of", "to the left"), "right": ("right of", "to the right")}


class Question(NamedTuple):
    """Hold a question before it is worded.

    Attributes:
        kind: one of `KINDS`.
        pattern: of its phrasings.
        answer: as training learns it.
        asked: the words that it asks for as the experts say them, with ``;`` between those that stand apart.
        name, other: what it is about.
        beside, place: relation and part of the picture.
        text: a text that it quotes, or sides to choose from.
    """

    kind: str
    pattern: str
    answer: str
    asked: str = ""
    name: Name | None = None
    other: Name | None = None
    beside: str = ""
    place: str = ""
    text: str = ""

    @property
    def answers(self) -> tuple[str, ...]:
        """All accepted answers."""
        if self.answer in NUMBERS:
            number = str(NUMBERS.index(self.answer))
            return (self.answer, number, *(("none", "no") if number == "0" else ()))
        if self.answer == "none":
            return NONE
        return (self.answer, *ALSO.get(self.answer, ()))


def ask(said: Perceived, part: str, rng: random.Random) -> Iterator[Question]:
    """Ask about a scene: about eight questions, fewer about an empty one."""
    if said.scene.things or said.scene.tags:
        yield _there(said, rng)
    yield _not_there(said, rng)
    yield from _count(said, rng)
    yield from _position(said, rng)
    yield from _relations(said, rng)
    yield from _texts(said, part, rng)
    yield from _attributes(said, rng)
    yield from _identities(said, rng)
    yield from _categories(said, rng)
    if rng.random() < (0.15 if said.scene.things else 0.9):
        yield _nothing(said, rng)


def _there(said: Perceived, rng: random.Random) -> Question:
    tags = [tag for tag in said.scene.tags if tag.text not in said.names]
    if tags and (not said.names or rng.random() < 0.25):
        name = rng.choice(tags)
    else:
        name = rng.choice(list(said.names.values()))
    asked = name.text
    kinds = said.known.kinds_of(name)
    if kinds and rng.random() < 0.25:
        name = rng.choice(kinds)  # who says robin has said bird
    return Question("existence", "existence", "yes", asked, name)


def _not_there(said: Perceived, rng: random.Random) -> Question:
    colored = [thing for thing in said.scene.things if thing.color]
    if colored and rng.random() < 0.5:
        name = other_color(rng, rng.choice(colored), said)
        if name is not None:
            return Question("existence", "existence", "no", name.text, name)
    name = said.absent(rng)
    return Question("existence", "existence", "no", name.text, name)


def _count(said: Perceived, rng: random.Random) -> Iterator[Question]:
    if rng.random() < (1 / 3 if said.scene.things else 0.5):
        name = said.absent(rng)
        yield Question("count", "count", "zero", name.text, name)
        return
    counted = said.scene.counted
    if counted is not None and 1 <= said.numbers[counted.text] <= 6:
        label = counted.text
        yield Question("count", "count", NUMBERS[said.numbers[label]], said.tally(label), said.names[label])


def _position(said: Perceived, rng: random.Random) -> Iterator[Question]:
    label = said.scene.placed
    cell = said.cell(label) if label in said.names else None
    if cell is None:
        return
    name, drawn = said.names[label], rng.random()
    if drawn < 0.4:
        yield Question("position", "position", cell, label, name)
        return
    sides = [side for side in SIDES if side in cell.split()]
    if drawn < 0.75:
        yield from _choice(cell, name, rng)
        return
    if not sides:
        return
    side = rng.choice(sides)
    if rng.random() < 0.5:
        yield Question("position", "at", "yes", f"{cell} {label}", name, place=side)
        return
    column = [other for other in SIDES[:2] if other not in sides]
    row = [other for other in SIDES[2:] if other not in sides]
    place = rng.choice(column if side in SIDES[:2] else row)
    yield Question("position", "at", "no", f"{place} {label}", name, place=place)


def _choice(cell: str, name: Name, rng: random.Random) -> Iterator[Question]:
    sides = rng.choice((ACROSS, DOWN))
    answer = next((side for side in sides if side in cell.split()), "center")
    if rng.random() < 0.5:
        if answer == "center":  # else of three sides it would be the commonest
            return
        sides = (sides[0], sides[2])
    yield Question("position", "side", answer, name.text, name, text=_listed(sides))


def _listed(sides: tuple[str, ...]) -> str:
    words = [AT.get(side, f"on the {side}") for side in sides]
    return f"{', '.join(words[:-1])} or {words[-1]}"


def _relations(said: Perceived, rng: random.Random) -> Iterator[Question]:
    single = [fact for fact in said.facts if said.numbers[fact.object] == 1]
    if single:
        yield from _yes_no(said, single, rng)
        yield from _open(said, single, rng)


def _yes_no(said: Perceived, facts: list[Fact], rng: random.Random) -> Iterator[Question]:
    if rng.random() < 0.5:
        fact = rng.choice(facts)
        asked = (
            f"{fact.subject}; {phrase_of(fact)}"
            if fact.said[0] == fact.subject
            else f"{phrase_of(fact)}; {fact.object}"
        )
        yield _related("yes", said, fact.subject, fact.relation, fact.object, asked)
        return
    false = [denial for denial in said.denials if said.numbers[denial[2]] == 1]
    if false and rng.random() < 0.8:
        subject, relation, object_ = rng.choice(false)
        yield _related("no", said, subject, relation, object_, f"{subject} {relation} {object_}")
        return
    fact, absent = rng.choice(facts), said.absent(rng)
    names = {absent.text: absent, fact.object: said.names[fact.object]}
    pair = [absent.text, fact.object]
    rng.shuffle(pair)
    asked = f"{pair[0]}; {pair[1]}"
    yield Question("relation", "relation", "no", asked, names[pair[0]], names[pair[1]], fact.relation)


def _related(answer: str, said: Perceived, subject: str, relation: str, object_: str, asked: str) -> Question:
    return Question("relation", "relation", answer, asked, said.names[subject], said.names[object_], relation)


def _open(said: Perceived, facts: list[Fact], rng: random.Random) -> Iterator[Question]:
    grouped = subjects(facts)
    alone = [group[0] for group in grouped.values() if len(group) == 1 and group[0].relation != "inside"]
    if alone:
        fact = rng.choice(alone)
        other = said.names[fact.object]
        yield Question("relation", "open", fact.subject, phrase_of(fact), None, other, fact.relation)
    on = [fact for fact in facts if fact.relation == "on" and said.numbers[fact.subject] == 1]
    under = Counter(fact.subject for fact in said.facts if fact.relation == "on")
    on = [fact for fact in on if under[fact.subject] == 1]
    if on and rng.random() < 0.7:
        fact = rng.choice(on)
        yield Question("relation", "support", fact.object, f"{fact.subject} on", said.names[fact.subject])
    straight = [f for f in facts if f.said[1] == f.relation and f.said[0] == f.subject and said.numbers[f.subject] == 1]
    straight = [fact for fact in straight if fact.relation in ("left of", "right of", "above", "below")]
    if straight and rng.random() < 0.3:
        fact = rng.choice(straight)
        names = said.names[fact.subject], said.names[fact.object]
        answer = fact.relation.removesuffix(" of")
        yield Question("relation", "direction", answer, f"{fact.subject}; {fact.object}", *names)
    related = [label for label in said.names if said.numbers[label] == 1]
    free = [(b, r) for b in related for r in DIRECTIONS if (r, b) not in grouped and not _beyond(said, b, r)]
    if free and rng.random() < 0.15:
        label, relation = rng.choice(free)
        yield Question("absent", "open", "none", f"{relation} {label}", None, said.names[label], relation)


def _beyond(said: Perceived, label: str, relation: str) -> bool:
    """Whether the cell of anything else lies on that side of a thing, though no relation says so."""
    words = {"left of": ACROSS, "right of": ACROSS[::-1], "above": DOWN, "below": DOWN[::-1]}[relation]
    order = [next((at for at in (0, 2) if words[at] in cell_of(t.box).split()), 1) for t in said.scene.things]
    own = [at for at, thing in zip(order, said.scene.things, strict=True) if thing.label == label]
    return min(order) < max(own)


def _texts(said: Perceived, part: str, rng: random.Random) -> Iterator[Question]:
    lines = [line.text for line in said.perception.texts]
    if rng.random() < (0.225 if lines else 0.15):  # two scenes in five have print
        yield Question("text", "any_text", "yes" if lines else "no", "text")
    if not lines:
        if rng.random() < 0.15:
            yield Question("absent", "text", "none", "text")
        return
    if len(lines) == 1 or (len(lines) <= 3 and rng.random() < 0.5):
        yield Question("text", "text", " ".join(lines), "text")
    cells = [cell_of(line.box) for line in said.scene.lines]
    alone = [line for line, cell in zip(said.scene.lines, cells, strict=True) if cells.count(cell) == 1]
    if alone and (len(lines) > 1 or rng.random() < 0.3):
        line = rng.choice(alone)
        cell = cell_of(line.box)
        yield Question("text", "text_at", line.text, f"{cell} text", place=cell)
    if rng.random() < 0.3:
        line = rng.choice(lines)
        if rng.random() < 0.5:
            yield Question("text", "says", "yes", f"text {line}", text=line)
        else:
            other = misread(rng, line) if rng.random() < 0.3 else draw_line(rng, part)
            if other.casefold() not in {text.casefold() for text in lines}:
                yield Question("text", "says", "no", f"text {other}", text=other)


def _attributes(said: Perceived, rng: random.Random) -> Iterator[Question]:
    things = [thing for thing in said.scene.things if thing.color]
    alone = [t for t in things if sum(other.name == t.name for other in said.scene.things) == 1]
    if alone:
        thing = rng.choice(alone)
        yield Question("attribute", "attribute", thing.color, thing.name.text, thing.name)


def _identities(said: Perceived, rng: random.Random) -> Iterator[Question]:
    labels, tags = list(said.names), [tag.text for tag in said.scene.tags]
    if len(labels) == 1:
        yield Question("identity", "identity", labels[0], labels[0])
    elif not labels and len(tags) == 1:
        yield Question("identity", "identity", tags[0], tags[0])
    elif len(labels) == 2 and rng.random() < 0.3:
        first, second = (detection.label for detection in _firsts(said))
        yield Question("identity", "identity", f"{first} and {second}", f"{first}; {second}")
    places: dict[str, set[str]] = {}
    for label in labels:
        for thing in said.things(label):
            cell = cell_of(thing.box)
            for place in {cell, *(word for word in cell.split() if word in SIDES)}:
                places.setdefault(place, set()).add(label)
    alone = [place for place, found in places.items() if len(found) == 1]
    if alone and len(labels) > 1:
        place = rng.choice(alone)
        [label] = places[place]
        cells = {cell_of(thing.box) for thing in said.things(label)}
        exact = place if place in cells else next(cell for cell in sorted(cells) if place in cell.split())
        yield Question("identity", "what_at", label, exact, place=place)


def _categories(said: Perceived, rng: random.Random) -> Iterator[Question]:
    """Ask "what animal ..?" where one name answers; and, less often, where none does."""
    names = [*said.names.values(), *(tag for tag in said.scene.tags if tag.text not in said.names)]
    found: dict[str, list[Name]] = {}
    for name in names:
        for word in categories_of(name):
            found.setdefault(word, []).append(name)
    alone = [(word, group[0]) for word, group in found.items() if len(group) == 1]
    if alone and rng.random() < 0.3:
        word, name = rng.choice(alone)
        yield Question("identity", "category", name.text, name.text, text=word)
    if rng.random() < 0.3:  # as often as one answers: else whatever there is becomes the answer
        absent = said.absent(rng, hard=0.3)
        free = [word for word in categories_of(absent) if word not in found]
        if free:
            yield Question("absent", "category", "none", absent.text, text=rng.choice(free))


def _firsts(said: Perceived) -> list:
    """The first detection of each label, in the order in which they are said."""
    found: dict[str, object] = {}
    for detection in said.perception.detections:
        found.setdefault(detection.label, detection)
    return list(found.values())


def _nothing(said: Perceived, rng: random.Random) -> Question:
    """Ask for what is not there."""
    if not said.scene.things and not said.scene.tags and rng.random() < 0.6:
        place = rng.choice((*SIDES, "center", ""))
        return Question("absent", "what_at" if place else "identity", "none", place, place=place)
    name = said.absent(rng)
    return Question("absent", rng.choice(("position", "position", "attribute")), "none", name.text, name)
