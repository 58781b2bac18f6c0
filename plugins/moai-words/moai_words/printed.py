"""Draw what is printed in a scene: words, made-up brands, numbers and lines of several words, each for one part only.

Knows: vocabulary and random draws. Words and lines are read from ``printed.txt``; brands and numbers are made by rule,
and the hash of each says which part it belongs to.
"""

from __future__ import annotations

import hashlib
import random
import re
from functools import cache
from importlib.resources import files

STARTS = "b c d f g h j k l m n p r s t v w z br cr dr fl gl kr pl pr sk st tr".split()
VOWELS = "a e i o u ai ea oo".split()
ENDS = ["", "", "n", "r", "x", "l", "s", "th", "nd", "ck"]
SHARES = {"train": 0.8, "validation": 0.1, "test": 0.1}  # of brands and numbers
LOOKALIKE = {
    "O": "0",
    "0": "O",
    "I": "l",
    "l": "1",
    "1": "I",
    "S": "5",
    "5": "S",
    "B": "8",
    "8": "B",
    "E": "F",
    "G": "6",
}
LOOKALIKE |= {
    "o": "a",
    "a": "o",
    "e": "c",
    "c": "e",
    "n": "u",
    "u": "v",
    "T": "I",
    "R": "P",
    "i": "l",
    "t": "f",
    "s": "5",
}
_HEAD = re.compile(r"\[(words|lines) \| (\w+)\]")


@cache
def lists(part: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Return the words and the lines of a part."""
    found: dict[tuple[str, str], list[str]] = {}
    head = ("", "")
    for row in files("moai_words").joinpath("printed.txt").read_text(encoding="utf-8").splitlines():
        if match := _HEAD.fullmatch(row):
            head = (match[1], match[2])
        elif row and not row.startswith("#"):
            items = row.split(";") if head[0] == "lines" else row.split()
            found.setdefault(head, []).extend(item.strip() for item in items if item.strip())
    return tuple(dict.fromkeys(found["words", part])), tuple(found["lines", part])


def draw_line(rng: random.Random, part: str) -> str:
    """Draw one printed line of one to five words."""
    words, lines = lists(part)
    what = rng.random()
    if what < 0.35:
        line = rng.choice(words)
    elif what < 0.47:
        line = _brand(rng, part)
    elif what < 0.57:
        line = _number(rng, part)
    elif what < 0.75:
        line = rng.choice(lines)
    else:
        line = " ".join(_words(rng, part, words))
    return rng.choice((str.upper, str.upper, str.title, str.lower))(line)


def misread(rng: random.Random, text: str) -> str:
    """Misread one letter of a text, as an OCR engine does: another that looks like it, or none."""
    places = [i for i, letter in enumerate(text) if letter in LOOKALIKE]
    if places and rng.random() < 0.8:
        at = rng.choice(places)
        return text[:at] + LOOKALIKE[text[at]] + text[at + 1 :]
    letters = [i for i, letter in enumerate(text) if letter != " "]
    at = rng.choice(letters)
    return text if len(letters) < 3 else text[:at] + text[at + 1 :]


def part_of(text: str) -> str:
    """Find the part that a brand or a number belongs to."""
    value = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) / 2**64
    for part, share in SHARES.items():
        if value < share:
            return part
        value -= share
    return "test"


def _words(rng: random.Random, part: str, words: tuple[str, ...]) -> list[str]:
    drawn = rng.sample(words, rng.choice((2, 2, 2, 3, 3, 4)))
    if rng.random() < 0.3:
        drawn[-1] = rng.choice((_brand, _number))(rng, part)
    return drawn


def _brand(rng: random.Random, part: str) -> str:
    while True:
        syllables = [rng.choice(STARTS) + rng.choice(VOWELS) for _ in range(rng.choice((1, 2, 2)))]
        brand = "".join(syllables) + rng.choice(ENDS)
        if len(brand) >= 4 and part_of(brand) == part:
            return brand


def _number(rng: random.Random, part: str) -> str:
    while True:
        number = str(rng.randrange(10 ** rng.choice((2, 3, 3, 4))))
        number = rng.choice((number, number, f"{number[:-2] or 0}.{number[-2:]:0>2}", f"A{number}", f"{number}th"))
        if part_of(number) == part:
            return number
