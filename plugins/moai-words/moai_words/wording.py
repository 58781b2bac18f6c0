"""Word questions in a language, by the phrasings of a part.

Knows: grammar of English articles and numbers, and of Korean particles.
"""

from __future__ import annotations

import random
import re

from moai_words.korean import BESIDE as KOREAN_BESIDE
from moai_words.korean import PARTICLES, with_particle
from moai_words.korean import PLACES as KOREAN_PLACES
from moai_words.names import Name, plural_of
from moai_words.phrasings import AFTER, BEFORE, BESIDE, ENGLISH, KOREAN, PLACE
from moai_words.questions import Question


def word_question(question: Question, part: str, korean: bool, rng: random.Random) -> tuple[str, str]:
    """Return a question's text and its language, ``"en"`` or ``"ko"``."""
    if korean and question.pattern in KOREAN:
        return _in_korean(question, part, rng), "ko"
    return _in_english(question, part, rng), "en"


def _in_english(question: Question, part: str, rng: random.Random) -> str:
    phrasing = rng.choice(ENGLISH[question.pattern][part])
    fields = {"text": question.text, "sides": question.text, "Sides": question.text[:1].upper() + question.text[1:]}
    name, plural = question.text, ""
    if question.name is not None:
        name, plural = _called(question.name, rng)
        fields |= {"a": _with_article(name, question.name), "names": plural}
    if question.other is not None:
        fields["other"] = _called(question.other, rng)[0]
    if question.beside:
        fields["beside"] = rng.choice(BESIDE[question.beside][part])
    if question.place:
        fields["place"] = rng.choice(PLACE[question.place][part])
    text = _introduced(phrasing.format(name=name, **fields), part, rng)
    return _agreeing(text, name) if question.name is not None and name == plural else text


def _introduced(text: str, part: str, rng: random.Random) -> str:
    """Put words that ask for nothing around half of the training questions: who sees ten phrasings learns these."""
    if part != "train" or rng.random() < 0.5:
        return text
    before, after = rng.choice(BEFORE), rng.choice(AFTER)
    text = text if not before or before.endswith(". ") else text[0].lower() + text[1:]
    text = text if after or rng.random() < 0.7 else text.rstrip("?.")
    return f"{before}{text}{after}"


def _called(name: Name, rng: random.Random) -> tuple[str, str]:
    """Return a name or one of its synonyms, and the plural."""
    if name.synonyms and rng.random() < 0.3:
        synonym = rng.choice(name.synonyms)
        return synonym, plural_of(synonym) if name.plural != name.text else synonym
    return name.text, name.plural


def _with_article(said: str, name: Name) -> str:
    if name.plural == name.text and name.area != "animals":  # jeans, broccoli
        return said
    return f"{'an' if said[0].lower() in 'aeio' or said.startswith(('um', 'un')) else 'a'} {said}"


def _agreeing(text: str, name: str) -> str:
    """Put the verb before a name that is a plural, such as scissors, into the plural."""
    if not name.endswith("s"):
        return text
    text = re.sub(rf"\bIs ((?:the |there )?{re.escape(name)})", r"Are \1", text)
    text = re.sub(rf"\bis ((?:the |there )?{re.escape(name)})", r"are \1", text)
    return re.sub(rf"\b([Dd])oes (the {re.escape(name)})", r"\1o \2", text)


def _in_korean(question: Question, part: str, rng: random.Random) -> str:
    phrasing = rng.choice(KOREAN[question.pattern][part])
    fields = {}
    if question.name is not None:
        name = question.name.korean_or_text
        fields = {"name": name, **{particle: with_particle(name, particle) for particle in PARTICLES}}
    if question.other is not None:
        fields["beside"] = question.other.korean_or_text + KOREAN_BESIDE[question.beside]
    if question.place:
        fields["place"] = KOREAN_PLACES[question.place]
    return phrasing.format(**fields)
