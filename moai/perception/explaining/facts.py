"""Find the characters of each fact in a verbalized perception.

Knows: perceptions and templates, but no wording. A fact is found by replacing it with characters that occur nowhere
else: its span is where the text then differs. So this works for every language and style and for the templates of
plugins, at one or two verbalizations per fact.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace

from moai.perception.words.formatting import clean_label
from moai.perception.words.token_budget import FIELDS, Dropped, Fact, Verbalization, facts_of, without_facts
from moai.perception.words.verbalize import PAPER, verbalize
from moai.plugins import Registry
from moai.types import Detection, Perception, Relation, Segment, TextLine

_CORNERS = ((0.0, 0.0, 0.0, 0.0), (1.0, 1.0, 1.0, 1.0))  # boxes that no other box is written like at both ends
_PRIVATE = range(0xE000, 0xF8FF)  # characters that mean nothing
_INSTANCE = re.compile(r" \(?#\d+\)?")  # as `instance_names` numbers instances of one name
_SPACELESS = "\u0e00"  # Thai, and after it most scripts that put no spaces between words


@dataclass(frozen=True)
class FactSpan:
    """Hold a fact and its characters, ``text[start:end]``."""

    start: int
    end: int
    role: str
    fact: Fact
    experts: tuple[str, ...]
    """The experts of its role, one of which found it."""


def find_facts(
    perception: Perception,
    words: Verbalization,
    language: str = "en",
    style: str = PAPER,
    registry: Registry | None = None,
) -> list[FactSpan]:
    """Find the facts of a verbalized perception, in the order of the text.

    Args:
        perception: the one that was verbalized.
        words: the result of ``verbalize_within``.
        language, style, registry: as given to ``verbalize_within``.

    Returns:
        One entry per fact that is found. A fact is not found when the template does not write its text. No two entries
        share a character: the shorter one has it.
    """
    kept = without_facts(perception, words.dropped)
    marker = next(sign for sign in map(chr, _PRIVATE) if sign not in words.text)
    found: list[tuple[Dropped, int, int]] = []
    for fact in facts_of(kept):
        given = {"registry": registry, "say_nothing_found": words.nothing_found}
        texts = [verbalize(changed, language, style, **given) for changed in _changed(kept, fact, marker)]
        spans = [span for text in texts if (span := _difference(words.text, text))]
        if spans:
            found.append((fact, *_whole_words(words.text, min(s for s, _ in spans), max(e for _, e in spans))))
    found = _with_ends(words.text, _apart(found))
    experts = {role: () for role in (fact.role for fact, _, _ in found)}
    for source in perception.sources:
        experts[source.role] = (*experts.get(source.role, ()), source.expert)
    return [FactSpan(start, end, fact.role, fact.fact, experts[fact.role]) for fact, start, end in found]


def _changed(perception: Perception, fact: Dropped, marker: str) -> Iterator[Perception]:
    """Yield the perception with the fact replaced; a box twice, since one of the two may be written like it."""
    item = fact.fact
    if isinstance(item, Segment):
        items = [replace(item, label=marker, attributes={}, box=box) for box in _CORNERS]
    elif isinstance(item, Detection):
        items = [replace(item, label=marker, box=box) for box in _CORNERS]
    elif isinstance(item, Relation):  # its ends are kept: they decide the objects' names in other relations
        items = [replace(item, predicate=marker)]
    elif isinstance(item, TextLine):
        items = [replace(item, text=marker), replace(item, text=marker, polygon=())]
    else:
        items = [marker]
    for new in items:
        if isinstance(item, str):
            lines = list(perception.notes[fact.role])
            lines[fact.number] = new
            yield replace(perception, notes={**perception.notes, fact.role: tuple(lines)})
        else:
            own = list(getattr(perception, FIELDS[fact.role]))
            own[fact.number] = new
            yield replace(perception, **{FIELDS[fact.role]: tuple(own)})


def _difference(text: str, other: str) -> tuple[int, int] | None:
    """Return the span of ``text`` between the common start and the common end; None when it is empty."""
    most = min(len(text), len(other))
    start = next((i for i in range(most) if text[i] != other[i]), most)
    end = next((i for i in range(most - start) if text[-1 - i] != other[-1 - i]), most - start)
    return (start, len(text) - end) if start < len(text) - end else None


def _whole_words(text: str, start: int, end: int) -> tuple[int, int]:
    """Widen a span to whole words and numbers, the brackets of a box and the number of an instance."""
    while start and (_joined(text, start) or text[start - 1] in "[("):
        start -= 1
    while end < len(text) and (_joined(text, end) or text[end] in "])"):
        end += 1
    numbered = _INSTANCE.match(text, end)
    return start, numbered.end() if numbered else end


def _joined(text: str, at: int) -> bool:
    """Return whether two letters or digits belong to one word; never in scripts without spaces."""
    before, after = text[at - 1], text[at]
    if "." in (before, after):  # of a number
        return text[at - 2 : at].replace(".", "0").isdigit() and text[at : at + 2].replace(".", "0").isdigit()
    return before.isalnum() and after.isalnum() and max(before, after) < _SPACELESS


def _apart(found: list[tuple[Dropped, int, int]]) -> list[tuple[Dropped, int, int]]:
    """Sort spans by place; of two that overlap the longer one loses the shared characters."""
    placed: list[tuple[Dropped, int, int]] = []
    for fact, start, end in sorted(found, key=lambda one: one[2] - one[1]):
        for _, other_start, other_end in placed:
            if start < other_end and other_start < end:
                start, end = max(((start, other_start), (other_end, end)), key=lambda part: part[1] - part[0])
        if start < end:
            placed.append((fact, start, end))
    return sorted(placed, key=lambda one: one[1])


def _with_ends(text: str, found: list[tuple[Dropped, int, int]]) -> list[tuple[Dropped, int, int]]:
    """Widen relations to the names that they relate: the nearest ones on either side, within their own clause."""
    wider: list[tuple[Dropped, int, int]] = []
    for index, (fact, start, end) in enumerate(found):
        if isinstance(fact.fact, Relation):
            low = wider[-1][2] if wider else 0
            high = found[index + 1][1] if index + 1 < len(found) else len(text)
            start, end = _with_names(text, fact.fact, (start, end), (low, high))
        wider.append((fact, start, end))
    return wider


def _with_names(text: str, relation: Relation, span: tuple[int, int], room: tuple[int, int]) -> tuple[int, int]:
    (start, end), (low, high) = span, room
    subject, object_ = clean_label(relation.subject), clean_label(relation.object)
    if object_ not in text[start:end]:
        after = text.find(object_, end, high)
        end = after + len(object_) if after >= 0 else end
    if text.count(subject, start, end) < 1 + (object_ == subject):
        before = text.rfind(subject, low, start)
        start = before if before >= 0 else start
    return _whole_words(text, start, end)
