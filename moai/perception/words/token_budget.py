"""A perception in words within a number of tokens: what does not fit is left out fact by fact.

Knows: which fact goes first. A fact is an object, a relation, a line of text or a sentence of a plugin's own role; it
is said whole or not at all. Least important roles lose facts first, and within a role the facts with the lowest
scores. What was left out is returned, and logged by counts.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from moai import types
from moai.errors import RecipeError
from moai.perception.words.verbalize import PAPER, verbalize
from moai.plugins import Registry
from moai.types import ROLES, Detection, Perception, Relation, Segment, TextLine

log = logging.getLogger("moai")
OWN = "own"  # stands for every role that a plugin brings
# The most important role first. What no image encoder sees (text) and what no other role repeats is kept longest:
# relations mostly restate boxes, and an open vocabulary mostly repeats the panoptic objects under other names.
IMPORTANCE = ("panoptic", "ocr", "open_world", OWN, "scene_graph")
FIELDS = {"panoptic": "segments", "open_world": "detections", "scene_graph": "relations", "ocr": "texts"}
Fact = Segment | Detection | Relation | TextLine | str  # a str is a sentence of ``Perception.notes``


class Dropped(NamedTuple):
    """A fact that was left out: its role, its number there (sentences of ``notes`` count on their own), itself."""

    role: str
    number: int
    fact: Fact


@dataclass(frozen=True)
class Spoken:
    """A verbalized perception, and the facts it leaves out, the first one to go first."""

    text: str
    dropped: tuple[Dropped, ...] = ()


def verbalize_within(
    perception: Perception,
    budget: int,
    count_tokens: Callable[[str], int],
    language: str = "en",
    style: str = PAPER,
    registry: Registry | None = None,
    scores: bool = False,
    merge_duplicates: bool = False,
    importance: Sequence[str] = IMPORTANCE,
) -> Spoken:
    """Put into words as much of a perception as fits; a longer one also logs a warning with the numbers.

    Args:
        perception: what the experts saw.
        budget: the most tokens that the text may have.
        count_tokens: the number of tokens of a text.
        language, style, registry, scores, merge_duplicates: as in :func:`~moai.perception.words.verbalize.verbalize`.
        importance: roles, the most important first; ``"own"`` stands for the plugins' own. A role that is not named is
            less important than those that are.

    Returns:
        The text of ``verbalize`` when it fits. Otherwise without as few facts as make it fit, in this order: the least
        important role first (own roles from the end of the alphabet); in a role first the sentences without a score,
        then the lowest score, of equals the one said later. The facts that stay keep their order. The text is empty
        when not even one fact fits, or when a template says more than the budget without any facts.

    Raises:
        RecipeError: as ``verbalize``, or ``importance`` names a role twice.
        PluginError: as ``verbalize``.
    """
    perception = types.merge_duplicates(perception) if merge_duplicates else perception
    text = verbalize(perception, language, style, registry, scores)
    length = count_tokens(text)
    if length <= budget:
        return Spoken(text)
    facts = _leaving(perception, importance)
    texts: dict[int, str] = {}

    def fits(left_out: int) -> bool:
        texts[left_out] = verbalize(without_facts(perception, facts[:left_out]), language, style, registry, scores)
        return count_tokens(texts[left_out]) <= budget

    fewest = 1 + bisect_left(range(1, len(facts) + 1), True, key=fits)  # each fact less is a shorter text
    spoken = Spoken(texts.get(fewest, ""), tuple(facts[:fewest]))
    log.warning("%s", _report(length, budget, facts, spoken.dropped))
    return spoken


def speak_within(
    plain_ids: Callable[[str], list[int]], perception: Perception, budget: int, language: str, style: str = PAPER
) -> tuple[Spoken, list[int]]:
    """A perception in words of at most ``budget`` tokens, and their ids; it loses whole facts, never half a box."""
    ids: dict[str, list[int]] = {"": []}

    def count_tokens(text: str) -> int:
        ids[text] = plain_ids(text)
        return len(ids[text])

    spoken = verbalize_within(perception, budget, count_tokens, language, style)
    return spoken, ids[spoken.text]


def _leaving(perception: Perception, importance: Sequence[str]) -> list[Dropped]:
    """All facts, the first to go first."""
    if len(set(importance)) != len(importance):
        raise RecipeError(f"importance names a role twice: {', '.join(importance)}; name each once")
    ranks = [*importance, *(role for role in IMPORTANCE if role not in importance)]

    def worth(dropped: Dropped) -> tuple[int, float]:
        rank = ranks.index(dropped.role if dropped.role in ranks else OWN)
        return -rank, -1.0 if isinstance(dropped.fact, str) else dropped.fact.score

    return sorted(reversed(facts_of(perception)), key=worth)  # reversed: of equals, the one said later goes first


def facts_of(perception: Perception) -> list[Dropped]:
    """All facts, in the order in which they are said."""
    said = {role: getattr(perception, name) for role, name in FIELDS.items()}
    facts = [Dropped(role, number, fact) for role in ROLES for number, fact in enumerate(said[role])]
    own = sorted(perception.notes, key=lambda role: (role in ROLES, role))
    return facts + [Dropped(role, number, line) for role in own for number, line in enumerate(perception.notes[role])]


def without_facts(perception: Perception, dropped: Sequence[Dropped]) -> Perception:
    """The perception less these facts; everything else stays as it is."""
    gone = {(role, isinstance(fact, str), number) for role, number, fact in dropped}
    kept = {
        name: tuple(fact for number, fact in enumerate(getattr(perception, name)) if (role, False, number) not in gone)
        for role, name in FIELDS.items()
    }
    notes = {
        role: tuple(line for number, line in enumerate(lines) if (role, True, number) not in gone)
        for role, lines in perception.notes.items()
    }
    return replace(perception, notes=notes, **kept)


def _report(length: int, budget: int, facts: Sequence[Dropped], dropped: Sequence[Dropped]) -> str:
    of, gone = Counter(fact.role for fact in facts), Counter(fact.role for fact in dropped)
    counts = ", ".join(f"{count} of {of[role]} from {role}" for role, count in gone.items())
    return (
        f"a perception of {length} tokens was cut to {budget} by leaving out whole facts ({counts or 'all of it'}); "
        "raise perception.max_tokens to keep more"
    )
