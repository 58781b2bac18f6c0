"""Read the words of a perception in the style ``compact``, and find the names in a question, by rules.

Knows: the style's patterns, and English: plurals, synonyms, and what is a kind of what (`moai_words.names`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from moai_words.names import PARTS, Name, plural_of, vocabulary

NUMBERS = "zero one two three four five six seven eight nine ten eleven twelve".split()
CELLS = ("top left", "top right", "bottom left", "bottom right", "top", "bottom", "left", "right", "center")
SAID = re.compile(
    r"(?P<a>.+?)(?: #\d+)? (?P<how>(?:overlapping )?(?:above |below )?(?:left|right) of|"
    r"(?:overlapping )?(?:above|below)|overlapping|inside|on|touching|next to) (?P<b>.+?)(?: #\d+)?"
)
COLORS = "red blue green yellow black white brown pink purple grey gray orange".split()
KNOWN: dict[str, Name] = {name.text: name for part in PARTS for name in vocabulary(part).names.values()}
SYNONYMS = {synonym: name.text for name in KNOWN.values() for synonym in name.synonyms}  # what people say, and experts
SINGULAR = {name.plural.split()[-1]: name.text.split()[-1] for name in KNOWN.values()}
SINGULAR |= {plural_of(synonym).split()[-1]: synonym.split()[-1] for synonym in SYNONYMS}
SYNONYMS |= {"human": "person", "lamp post": "street lamp", "street": "road"}


@dataclass
class Words:
    """Hold the facts of a text in the style ``compact``."""

    objects: list[tuple[str, str]] = field(default_factory=list)  # label, cell
    relations: list[tuple[str, str, str]] = field(default_factory=list)
    texts: list[tuple[str, str]] = field(default_factory=list)  # line, cell or ""
    counts: dict[str, int] = field(default_factory=dict)
    tags: list[str] = field(default_factory=list)

    @property
    def names(self) -> list[str]:
        """All labels and tags, in their order, each once."""
        return list(dict.fromkeys([*(label for label, _ in self.objects), *self.tags]))


def parse(text: str) -> Words:
    """Read the facts of a verbalized perception; what fits no pattern is left out."""
    words = Words()
    for sentence in re.split(r"(?<=[^.])\. |\.$", text):
        facts = [fact.strip() for fact in sentence.split(", ") if fact.strip()]
        if facts and (shown := re.fullmatch(r"the picture shows (.+)", facts[0], re.IGNORECASE)):
            words.tags += [shown[1], *facts[1:]]
            continue
        for fact in facts:
            _enter(words, fact)
    return words


def _enter(words: Words, fact: str) -> None:
    cell = next((cell for cell in CELLS if fact.startswith(f"{cell} ")), "")
    rest = fact[len(cell) :].strip()
    first, _, phrase = fact.partition(" ")
    number = NUMBERS.index(first) if first in NUMBERS else int(first) if first.isdecimal() else None
    if rest.startswith("text "):
        words.texts.append((rest[5:], cell))
    elif cell:
        words.objects.append((rest, cell))
    elif related := SAID.fullmatch(fact):
        words.relations.append((related["a"], related["how"], related["b"]))
    elif number is not None and phrase:
        words.counts[singular(phrase)] = number


def known_name(name: str) -> Name:
    """What is known of a name, with or without a colour before it."""
    ends = [" ".join(name.split()[at:]) for at in range(len(name.split()))]
    return next((KNOWN[end] for end in ends if end in KNOWN), Name(name, name, "", ""))


def names_in(text: str, words: Words) -> list[str]:
    """List the names that a text mentions, in its order; of names within names the longest."""
    asked = f" {singular(text)} "
    for heard, label in SYNONYMS.items():
        if f" {heard} " in asked and label in words.names and heard not in words.names and f" {label} " not in asked:
            asked = asked.replace(f" {heard} ", f" {label} ")
    found: list[tuple[int, int, int, str]] = []
    for name in words.names:
        whole = singular(name).split()
        forms = [" ".join(whole[at:]) for at in range(len(whole))]  # a red car is a car, and so is a cab
        forms += [kind for kind in (known_name(name).kind,) if kind]
        for number, form in enumerate(forms):
            at = asked.find(f" {form} ")
            before = asked[:at].split()[-1:] if at >= 0 else []
            if at < 0 or (number and before and (before[0] in COLORS or f"{before[0]} {form}" in KNOWN)):
                continue  # a green car is no red car, and a police car no sports car
            found.append((at, -len(form), number, name))
            break
    kept: list[str] = []
    end = -1
    for at, length, _, name in sorted(found):
        if at > end:
            kept.append(name)
            end = at - length
    return kept


def singular(text: str) -> str:
    return " ".join(_stem(word) for word in re.findall(r"[\w'-]+", text.casefold()))


def _stem(word: str) -> str:
    if word in SINGULAR:
        return SINGULAR[word]
    if len(word) > 4 and word.endswith("ies"):
        return f"{word[:-3]}y"
    if re.search(r"(?:sh|ch|x|ss|zz|o)es$", word):
        return word[:-2]
    return word[:-1] if len(word) > 3 and re.search(r"[^su]s$", word) else word
