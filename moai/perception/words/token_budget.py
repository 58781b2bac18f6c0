"""Verbalize a perception within a number of tokens, by leaving out whole facts.

Knows: the order in which facts are left out. A fact is an object, a relation, a line of text or a sentence of a
plugin's own role. The least important roles lose facts first, and within a role the facts with the lowest scores. The
facts left out are returned, and their numbers are logged.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

from moai.errors import RecipeError
from moai.perception.words.merging import merge_findings
from moai.perception.words.verbalize import PAPER, found_nothing, verbalize
from moai.plugins import Registry
from moai.types import ROLES, Detection, Perception, Relation, Segment, TextLine

log = logging.getLogger("moai")
OWN = "own"  # stands for every role that a plugin brings
# The most important role first. Relations mostly restate boxes, and an open vocabulary mostly repeats the panoptic
# objects under other names. Text is in no other role, and an image encoder hardly represents it.
IMPORTANCE = ("panoptic", "ocr", "open_world", OWN, "scene_graph")
FIELDS = {"panoptic": "segments", "open_world": "detections", "scene_graph": "relations", "ocr": "texts"}
Fact = Segment | Detection | Relation | TextLine | str  # a str is a sentence of ``Perception.notes``


class Dropped(NamedTuple):
    """Hold a fact that was left out, its role, and its number there (sentences of ``notes`` are numbered apart)."""

    role: str
    number: int
    fact: Fact


@dataclass(frozen=True)
class Verbalization:
    """Hold a perception as text, its token ids, and the facts left out, in the order in which they were removed."""

    text: str
    dropped: tuple[Dropped, ...] = ()
    ids: Sequence[Any] = ()
    nothing_found: bool = False  # whether the text says that there are no objects


def verbalize_within(
    perception: Perception,
    budget: int,
    tokenize: Callable[[str], Sequence[Any]],
    language: str = "en",
    style: str = PAPER,
    registry: Registry | None = None,
    scores: bool = False,
    merge: bool = False,
    importance: Sequence[str] = IMPORTANCE,
    strongest: bool = False,
    say_nothing_found: bool = False,
) -> Verbalization:
    """Verbalize as many facts as fit into a budget of tokens; a longer perception also logs a warning with the numbers.

    Args:
        perception: the experts' findings.
        budget: the most tokens that the text may have.
        tokenize: the token ids of a text.
        language, style, registry, scores, merge, say_nothing_found: as in
            :func:`~moai.perception.words.verbalize.verbalize`.
        importance: roles, the most important first; ``"own"`` stands for the plugins' own. A role that is not named is
            less important than those that are.
        strongest: objects and lines of text stay by their scores, whatever their role; of equal scores the more
            important role's, and in it the larger object.

    Returns:
        The text of ``verbalize`` when it fits, and its ids. Otherwise as few facts as possible are left out, in this
        order: the least important role first (own roles from the end of the alphabet); in a role first the sentences
        without a score, then the lowest score, of equals the later one. The other facts keep their order. The text is
        empty when not even one fact fits, or when a template exceeds the budget without any facts.

    Raises:
        RecipeError: as ``verbalize``, or ``importance`` names a role twice.
        PluginError: as ``verbalize``.
    """
    perception = merge_findings(perception, language) if merge else perception
    nothing = say_nothing_found and found_nothing(perception)  # not where only the budget leaves none

    def without(dropped: Sequence[Dropped]) -> Verbalization:
        rest = without_facts(perception, dropped) if dropped else perception
        text = verbalize(rest, language, style, registry, scores, say_nothing_found=nothing)
        return Verbalization(text, tuple(dropped), tokenize(text) if text else (), nothing)

    whole = without(())
    if len(whole.ids) <= budget:
        return whole
    facts = _by_removal(perception, importance, strongest)
    tried: dict[int, Verbalization] = {}

    def fits(count: int) -> bool:
        tried[count] = without(facts[:count])
        return len(tried[count].ids) <= budget

    fewest = 1 + bisect_left(range(1, len(facts) + 1), True, key=fits)  # each fact less is a shorter text
    fitting = tried[fewest] if fewest in tried else Verbalization("", tuple(facts))
    log.warning("%s", _report(len(whole.ids), budget, facts, fitting.dropped))
    return fitting


def _by_removal(perception: Perception, importance: Sequence[str], strongest: bool) -> list[Dropped]:
    """List all facts in the order in which they are left out."""
    if len(set(importance)) != len(importance):
        raise RecipeError(f"importance names a role twice: {', '.join(importance)}; name each once")
    ranks = [*importance, *(role for role in IMPORTANCE if role not in importance)]

    def worth(dropped: Dropped) -> tuple[float, ...]:
        rank = ranks.index(dropped.role if dropped.role in ranks else OWN)
        score = -1.0 if isinstance(dropped.fact, str) else dropped.fact.score
        if strongest and isinstance(dropped.fact, Segment | Detection | TextLine):
            return 0.0, score, -rank, _area(dropped.fact)
        return (-1.0, -rank, score) if strongest else (-rank, score)

    return sorted(reversed(facts_of(perception)), key=worth)  # reversed: of equals, the later one goes first


def _area(fact: Segment | Detection | TextLine) -> float:
    if isinstance(fact, TextLine):
        return 0.0
    return (fact.box[2] - fact.box[0]) * (fact.box[3] - fact.box[1])


def facts_of(perception: Perception) -> list[Dropped]:
    """List all facts, in the order of the text."""
    by_role = {role: getattr(perception, name) for role, name in FIELDS.items()}
    facts = [Dropped(role, number, fact) for role in ROLES for number, fact in enumerate(by_role[role])]
    own = sorted(perception.notes, key=lambda role: (role in ROLES, role))
    return facts + [Dropped(role, number, line) for role in own for number, line in enumerate(perception.notes[role])]


def without_facts(perception: Perception, dropped: Sequence[Dropped]) -> Perception:
    """Remove these facts from a perception; everything else is unchanged."""
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
