"""Verbalize the four roles from a wording: the sentences of one language as patterns.

Knows: lists, relations and particles, but no language. Labels and recognised text are inserted unchanged: they are not
translated and not inflected, so a pattern carries the grammar itself ("left of the object cup").
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from moai.perception.words.formatting import box_facts, clean, instance_names, text_facts, with_score
from moai.types import Perception, Relation

# An expert's predicate -> the relation that a wording has a pattern for. Any other predicate uses `Wording.other`.
RELATIONS = {
    **{name: name for name in ("inside", "on", "touching", "next to", "left of", "right of", "above", "below")},
    **{name: name for name in ("in front of", "behind", "near")},
    **{"in": "inside", "on top of": "on", "beside": "next to", "over": "above", "under": "below"},
    **{"to the left of": "left of", "to the right of": "right of", "close to": "near"},
}
Template = Callable[..., str]


@dataclass(frozen=True)
class Wording:
    """Hold the sentences of a language as patterns, and render the templates of the four roles from them."""

    objects: str
    """The words before boxes and names."""
    relations: str
    """The words before relations."""
    texts: str
    """The words before lines of text."""
    between: dict[str, str]
    """Relation -> pattern with ``{subject}`` and ``{object}``; the keys are the values of `RELATIONS`."""
    other: str
    """The pattern of every other relation, which also has ``{predicate}``."""
    comma: str = ", "
    last: str = ", "
    """The separator before the last of several objects or texts."""
    semicolon: str = "; "
    """The separator between relations, which are clauses."""
    stop: str = "."
    particles: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    """Field of a pattern -> the particle of a subject that ends in a consonant, in a vowel, in neither (Korean)."""

    def panoptic(self, perception: Perception, scores: bool = False) -> str:
        """List the boxes and names of the segments."""
        return self._list(self.objects, box_facts(perception.segments, scores))

    def open_world(self, perception: Perception, scores: bool = False) -> str:
        """List the boxes and names of the detections."""
        return self._list(self.objects, box_facts(perception.detections, scores))

    def scene_graph(self, perception: Perception, scores: bool = False) -> str:
        """List the relations; instances that share a name are numbered, ``person (#1)``."""
        names = instance_names(perception.relations)
        facts = [
            with_score(
                self._relation(r, names[r.subject, r.subject_box], names[r.object, r.object_box]), r.score, scores
            )
            for r in perception.relations
        ]
        return f"{self.relations}{self.semicolon.join(facts)}{self.stop}" if facts else ""

    def ocr(self, perception: Perception, scores: bool = False) -> str:
        """List the lines of text, as read."""
        return self._list(self.texts, text_facts(perception, scores))

    def templates(self, language: str) -> dict[tuple[str, str], Template]:
        """Return the templates of the four roles, by role and language."""
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
    """Return 0 for a word that ends in a Hangul syllable with a final consonant, 1 without one, 2 for any other."""
    syllable = ord(word[-1]) - 0xAC00 if word else -1
    if not 0 <= syllable < 11172:  # the block of precomposed syllables
        return 2
    return 0 if syllable % 28 else 1
