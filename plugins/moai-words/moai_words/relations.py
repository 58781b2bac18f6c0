"""Read what relations are said of two things, and what follows from them and what does not.

Knows: the predicates of `moai-geometry` with ``every_pair``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import NamedTuple

from moai.types import Relation

DIRECTIONS = ("left of", "right of", "above", "below")
ASKED = (*DIRECTIONS, "next to", "on", "inside", "touching")
INVERSE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
INVERSE |= {"next to": "next to", "touching": "touching"}


class Fact(NamedTuple):
    """Hold a relation between two names, and how it is said: subject, predicate and object."""

    subject: str
    relation: str
    object: str
    said: tuple[str, str, str]


def follows(predicate: str) -> set[str]:
    """Return what is true of a pair that this is said of."""
    words = predicate.split()
    found = {relation for relation in DIRECTIONS if relation.split()[0] in words}
    if predicate in ("left of", "right of"):
        found.add("next to")
    if words[0] == "overlapping":
        found |= {"touching", "next to"}
    elif words[0] == "inside":
        found |= {"inside", "touching"}
    elif words[0] == "on":
        found |= {"on", "touching", "above"}
    return found


def denied(predicate: str) -> set[str]:
    """Return what is false of a pair that this is said of; of the rest nobody can tell."""
    true, first = follows(predicate), predicate.split()[0]
    if first == "inside":
        return set()
    if first == "on":
        return {"below", "inside"}
    if first == "overlapping":
        return {INVERSE[word] for word in true & set(DIRECTIONS)} | {"inside"}
    # Of things in a row nobody says that one is above the other.
    return (set(DIRECTIONS) - true) | {"touching", "on", "inside"} | ({"next to"} - true)


def facts_of(relations: Iterable[Relation]) -> list[Fact]:
    """List all that follows from relations, from both sides, where the two have different names."""
    found: dict[tuple[str, str, str], Fact] = {}
    for r in relations:
        if r.subject == r.object:
            continue
        said = (r.subject, r.predicate, r.object)
        for relation in sorted(follows(r.predicate)):
            # What is said in these words goes before what is said from the other side.
            found[r.subject, relation, r.object] = Fact(r.subject, relation, r.object, said)
            if relation in INVERSE:
                key = (r.object, INVERSE[relation], r.subject)
                found.setdefault(key, Fact(*key, said))
    return list(found.values())


def denials_of(relations: Iterable[Relation], facts: Iterable[Fact]) -> list[tuple[str, str, str]]:
    """List what is false of pairs of different names, if no relation between the two says or allows it."""
    true = {fact[:3] for fact in facts}
    by_pair: dict[tuple[str, str], list[set[str]]] = {}
    for r in relations:
        by_pair.setdefault((r.subject, r.object), []).append(denied(r.predicate))
        back = {INVERSE[word] for word in denied(r.predicate) if word in INVERSE}
        by_pair.setdefault((r.object, r.subject), []).append(back)
    return [
        (subject, relation, object_)
        for (subject, object_), sets in by_pair.items()
        if subject != object_
        for relation in ASKED
        if relation in set.intersection(*sets) and (subject, relation, object_) not in true
    ]


def subjects(facts: Iterable[Fact]) -> Mapping[tuple[str, str], list[Fact]]:
    """Group facts by relation and object."""
    found: dict[tuple[str, str], list[Fact]] = {}
    for fact in facts:
        found.setdefault((fact.relation, fact.object), []).append(fact)
    return found


def phrase_of(fact: Fact) -> str:
    """Write a fact's own words around its object or subject, as they stand in a row: "above left of dog"."""
    subject, predicate, object_ = fact.said
    return f"{predicate} {object_}" if subject == fact.subject else f"{subject} {predicate}"
