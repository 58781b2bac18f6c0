"""Count the findings of other experts by name, in words.

Knows: names only. A language model that reads "red circle, blue circle, red square" has to compare and count to answer
"how many circles?"; an attention that averages what it reads cannot. So the counting is done here: *two circles, two
red, one blue, one square*. Words that always occur together are one phrase (*one dining table*), and a name's last word
is its noun, which alone is put into the plural.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache

from PIL import Image
from pydantic import Field

import moai
from moai import Expert, Options
from moai.plugin_api import clean_label
from moai.types import Perception, Segment, describe, merge_duplicates


class Tally(Expert):
    """Count names, and the words that names share; English only."""

    name = "tally"
    role = "count"
    requires = ("panoptic", "open_world")
    version = "2"
    install = "pip install moai-tally"
    licence = "Apache-2.0"

    class Options(Options):
        most: int = Field(12, ge=1)
        """At most this many counts per picture, the highest first."""
        words: bool = True
        """Count what names have in common too, "two red" of a red circle and a red square; false: whole names only."""

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Count what ``context`` holds; the pictures are not used."""
        return [self.to_perception(perceived) for perceived in context]

    def to_perception(self, perceived: Perception) -> Perception:
        """Write one sentence per count, such as ``two circles.``; a pure function."""
        names = names_of(perceived)
        nouns = {name.split()[-1] for name in names}
        counted = sorted(count(names, self.options.words), key=lambda pair: -pair[1])[: self.options.most]
        sentences = tuple(sentence_of(phrase, number, phrase.split()[-1] in nouns) for phrase, number in counted)
        return Perception(notes={self.role: sentences} if sentences else {})


def names_of(perceived: Perception) -> list[str]:
    """List the names of all things but stuff, each once: a detection of what is a segment already is the same thing."""
    once = merge_duplicates(perceived)
    things = [item for item in (*once.segments, *once.detections) if not isinstance(item, Segment) or item.is_thing]
    return [name for item in things if (name := clean_label(describe(item)))]


def count(names: Sequence[str], words: bool = True) -> list[tuple[str, int]]:
    """Count the names that each phrase occurs in, in the order of first mention.

    Words that occur in exactly the same names are one phrase, in the order in which the first of them says it.
    """
    where: dict[str, set[int]] = {}
    for index, name in enumerate(names):
        for part in name.split() if words else [name]:
            where.setdefault(part, set()).add(index)
    together: dict[frozenset[int], list[str]] = {}
    for part, indices in where.items():
        together.setdefault(frozenset(indices), []).append(part)
    return [(" ".join(parts), len(indices)) for indices, parts in together.items()]


def sentence_of(phrase: str, number: int, noun: bool = True) -> str:
    """Write ``two circles.``, or, when the phrase does not end in a noun, ``two red.``; digits above ten."""
    *before, last = phrase.split()
    if noun and number != 1:
        last = _english().plural_noun(last) or last
    return " ".join([_english().number_to_words(number, threshold=10), *before, last]) + "."


@cache
def _english():
    import inflect  # takes half a second, and only who counts needs it

    return inflect.engine()


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class."""
    register(Tally)
