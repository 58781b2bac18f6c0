"""A wording: the sentences of one language as patterns, and how facts are put into them.

Knows: lists, relations and particles, but no language. Labels and recognised text are put in as they are: they are not
translated and not inflected, so a pattern bears the grammar itself ("left of the object cup").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from moai.perception.words.verbalize import box_facts, clean, instance_names, text_facts, with_score
from moai.types import Perception, Relation

# What experts say -> the relation that a wording has a pattern for. Anything else is said by `Wording.other`.
RELATIONS = {
    **{name: name for name in ("inside", "on", "touching", "next to", "left of", "right of", "above", "below")},
    **{name: name for name in ("in front of", "behind", "near")},
    **{"in": "inside", "on top of": "on", "beside": "next to", "over": "above", "under": "below"},
    **{"to the left of": "left of", "to the right of": "right of", "close to": "near"},
}
Template = Callable[..., str]


@dataclass(frozen=True)
class Wording:
    """How a language says what is seen."""

    objects: str
    """What introduces boxes and names."""
    relations: str
    """What introduces relations."""
    texts: str
    """What introduces lines of text."""
    between: dict[str, str]
    """Relation -> pattern with ``{subject}`` and ``{object}``; the keys are the values of `RELATIONS`."""
    other: str
    """The pattern of every other relation, with ``{predicate}`` besides."""
    comma: str = ", "
    last: str = ", "
    """Before the last of several objects or texts."""
    semicolon: str = "; "
    """Between relations, which are clauses."""
    stop: str = "."
    particles: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Field of a pattern -> what follows a subject that ends in a consonant, in a vowel, in neither (Korean)."""

    def panoptic(self, perception: Perception, scores: bool = False) -> str:
        """Boxes and names of the segments."""
        return self._list(self.objects, box_facts(perception.segments, scores))

    def open_world(self, perception: Perception, scores: bool = False) -> str:
        """Boxes and names of the detections."""
        return self._list(self.objects, box_facts(perception.detections, scores))

    def scene_graph(self, perception: Perception, scores: bool = False) -> str:
        """Relations; instances that share a name are numbered, ``person (#1)``."""
        names = instance_names(perception.relations)
        facts = [
            with_score(
                self._relation(r, names[r.subject, r.subject_box], names[r.object, r.object_box]), r.score, scores
            )
            for r in perception.relations
        ]
        return f"{self.relations}{self.semicolon.join(facts)}{self.stop}" if facts else ""

    def ocr(self, perception: Perception, scores: bool = False) -> str:
        """The lines of text, as read."""
        return self._list(self.texts, text_facts(perception, scores))

    def templates(self, language: str) -> dict[tuple[str, str], Template]:
        """The templates of the four roles, by role and language."""
        methods = (self.panoptic, self.open_world, self.scene_graph, self.ocr)
        return {(method.__name__, language): method for method in methods}

    def _list(self, start: str, facts: list[str]) -> str:
        if len(facts) > 1:
            facts = [f"{self.comma.join(facts[:-1])}{self.last}{facts[-1]}"]
        return f"{start}{facts[0]}{self.stop}" if facts else ""

    def _relation(self, relation: Relation, subject: str, object_: str) -> str:
        predicate = clean(relation.predicate)
        pattern = self.between.get(RELATIONS.get(predicate.lower(), ""), self.other)
        ending = _ending(subject)
        particles = {name: forms[ending] for name, forms in self.particles.items()}
        return pattern.format(subject=subject, object=object_, predicate=predicate, **particles)


def _ending(word: str) -> int:
    """0 when the word ends in a Hangul syllable with a final consonant, 1 without one, 2 in any other character."""
    syllable = ord(word[-1]) - 0xAC00 if word else -1
    if not 0 <= syllable < 11172:  # the block of precomposed syllables
        return 2
    return 0 if syllable % 28 else 1
