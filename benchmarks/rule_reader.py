"""What the words of perceptions hold: a reader that answers questions from them by rules, and learns nothing.

    python benchmarks/rule_reader.py --data words --split validation --limit 2000
    python benchmarks/rule_reader.py --data photographs --split tuning
    python benchmarks/rule_reader.py --data photographs --split tuning --recipe photos

It gets the verbalized text in the style ``compact`` and the question, nothing else, so its share of right answers is
the ceiling for a model that reads the same words. Without ``--recipe`` the words are those of perfect perception
(``Sample.truths``); with it, what the recipe's experts find in the pictures. Only English questions are asked.
"""

from __future__ import annotations

import argparse
import re
from collections import defaultdict
from collections.abc import Sequence

from compact_words import COLORS, NUMBERS, Words, known_name, names_in, parse, singular
from moai_words.names import CATEGORIES, categories_of
from moai_words.phrasings import AFTER, BEFORE

from moai import Perceiver
from moai.evaluation.metrics import accuracy_interval, exact_match
from moai.images import read_image
from moai.perception.cache.store import default_store
from moai.perception.words.verbalize import verbalize
from moai.plugins import registry
from moai.recipe.loading import load_recipe
from moai.types import Perception, Sample, merge

ROWS, COLUMNS = ("top", "bottom"), ("left", "right")
OPPOSITE = {"left": "right", "right": "left", "above": "below", "below": "above"}
RELATIONS = (  # what a question says -> relation; the first that fits counts
    (r"to the left of|on the left(?: side)? of|at the left of|left of", "left"),
    (r"to the right of|on the right(?: side)? of|at the right of|right of", "right"),
    (r"on top of|standing on|placed on|lying on|sitting on|resting on|fixed to|riding on|riding|upon", "on"),
    (r"(?:somewhere |up )?above|over|higher than", "above"),
    (r"(?:somewhere |down )?below|under(?:neath)?|beneath|lower than", "below"),
    (r"right beside|alongside|next to|beside|near|by", "beside"),
    (r"in contact with|in touch with|touching|overlapp(?:ing|ed)(?: with)?", "touching"),
    (r"inside(?: of)?|within|in", "inside"),
    (r"on", "on"),
)
PLACES = (  # what a question says -> part of the picture
    (r"(?:top|upper) left|left (?:top|upper)", "top left"),
    (r"(?:top|upper) right|right (?:top|upper)", "top right"),
    (r"(?:bottom|lower) left|left (?:bottom|lower)", "bottom left"),
    (r"(?:bottom|lower) right|right (?:bottom|lower)", "bottom right"),
    (r"(?:at|to|on|near) the left|left(?:-hand)? side", "left"),
    (r"(?:at|to|on|near) the right|right(?:-hand)? side", "right"),
    (r"(?:at|near|in) the (?:very )?top|upper part|top part", "top"),
    (r"(?:at|near|in) the (?:very )?bottom|lower part|bottom part", "bottom"),
    (r"(?:in|at) the (?:center|centre|middle|central)", "center"),
)
TEXT = r"\b(?:texts?|sign|say|says|written|writing|words?|read|reads|printed|lettering|letters?|title|heading|label)\b"
ANY_TEXT = r"\b(?:texts?|written|writing|words?|read|printed|lettering|letters)\b"
WHERE = (
    r"(?:where|whereabouts|in (?:which|what) |on which side|which (?:area|section|region|part|way|side) |at which |"
    r"seen from |what is the (?:position|place|location)|how does the )"
)
YES_NO = r"(?:is|are|does|do|can|could|would|has|have|will)\b"
PICTURE = r"\b(?:anywhere )?(?:in|of|on|from) (?:the|this) (?:image|picture|photo|photograph|scene)\b"
CATEGORY = rf"(?:what|which|name the)(?: kind of| type of)? (animal|{'|'.join(CATEGORIES)})\b"


def answer(question: str, words: Words) -> str:
    """Answer a question by rules, in English."""
    asked = re.sub(r"\s+", " ", _bare(question).strip())
    low = asked.lower().rstrip("?.! ")
    if quoted := re.search(r'"(.+)"', asked):
        return "yes" if any(quoted[1].casefold() == line.casefold() for line, _ in words.texts) else "no"
    low = re.sub(rf" ?{PICTURE},?| in it\b", "", low).strip()
    if re.match(
        r"(?:how many|count|(?:tell me )?the number|what is the (?:number|count) of)|.*\bhow many\b|tell me the number",
        low,
    ):
        return _count(low, words)
    if re.search(r"\bcolou?r\b", low):
        return _color(low, words)
    yes_no = re.match(YES_NO, low) and not re.search(r"\bor\b", low)
    if re.search(ANY_TEXT if yes_no else TEXT, low) and not names_in(low, words):
        if yes_no:
            return "yes" if words.texts else "no"
        return _text(low, words)
    if yes_no:
        return _yes_no(low, words)
    return _open(low, words)


def _bare(question: str) -> str:
    """Leave out the words around a question that ask for nothing."""
    question = next((question[len(before) :] for before in BEFORE if before and question.startswith(before)), question)
    return next((question[: -len(after)] for after in AFTER if after and question.endswith(after)), question)


def _count(low: str, words: Words) -> str:
    found = names_in(low, words)
    labels = [label for label, _ in words.objects]
    for name in found:
        if name in words.counts:
            return _number(words.counts[name])
        if name in labels:
            return _number(labels.count(name))
    return "zero"


def _number(count: int) -> str:
    return NUMBERS[count] if count < len(NUMBERS) else str(count)


def _color(low: str, words: Words) -> str:
    asked = f" {singular(low)} "
    for label in words.names:
        first, _, name = label.partition(" ")
        if first in COLORS and name and names_in(asked, Words([(name, "")])):
            return first
    return "none"


def _text(low: str, words: Words) -> str:
    if words.texts and re.search(r"\b(?:heading|headline|title)\b", low):
        return words.texts[0][0]
    place = _place(low)
    lines = [line for line, cell in words.texts if not place or cell == place]
    if place and not lines:
        lines = [line for line, cell in words.texts if place in cell.split()]
    return " ".join(lines) or "none"


def _yes_no(low: str, words: Words) -> str:
    relation = _relation(low)
    if relation:
        before, how, after = relation
        one, other = names_in(before, words), names_in(after, words)
        # What is asked for may be a plain place: "is there a dog on the left?".
        if other or not _place(low):
            true = one and other and (_holds(words, one[0], how, other[0]) or _apart(words, one[0], how, other[0]))
            return "yes" if true else "no"
    names = names_in(low, words)
    place = _place(low)
    if place and names:
        cells = [cell for label, cell in words.objects if label == names[0]]
        return "yes" if any(cell == place or place in cell.split() for cell in cells) else "no"
    return "yes" if names else "no"


def _open(low: str, words: Words) -> str:
    if category := re.match(CATEGORY, low):
        return _category(category[1], words)
    if re.search(r"\bor\b", low) and (names := names_in(low, words)):
        return _choice(low, next((cell for label, cell in words.objects if label == names[0]), ""))
    if re.match(WHERE, low):
        return _where(low, words)
    if re.match(r"(?:up)?on what\b", low):
        return _supported(low, words) if names_in(low, words) else "none"
    relation = _relation(low)
    if relation:
        before, how, after = relation
        other = names_in(after, words)
        if other:
            rest = [name for name in words.names if name != other[0]]
            said = [name for name in rest if _holds(words, name, how, other[0])]
            return next(iter(said or [name for name in rest if _apart(words, name, how, other[0])]), "none")
        subject = names_in(before, words)
        if subject and how in ("on", "inside"):
            return next((b for b in words.names if _holds(words, subject[0], how, b)), "none")
        if not _place(low):
            return _supported(low, words) if names_in(low, words) else "none"
    if place := _place(low):
        exact = [label for label, cell in words.objects if cell == place]
        near = [label for label, cell in words.objects if place in cell.split()]
        return next(iter(near if len(set(near)) == 1 else exact or near), "none")
    if re.search(r"\bon\b|rest|holds|stand", low) and names_in(low, words):
        return _supported(low, words)
    labels = list(dict.fromkeys(label for label, _ in words.objects))
    return " and ".join(labels) if len(labels) == 2 else next(iter(words.names), "none")


def _supported(low: str, words: Words) -> str:
    subject = names_in(low, words)[0]
    return next((b for b in words.names if _holds(words, subject, "on", b)), "none")


def _where(low: str, words: Words) -> str:
    names = names_in(low, words)
    if len(names) > 1 or re.search(r"\b(?:relative|compared|respect|which side of|from the|stand to)\b", low):
        if len(names) < 2:
            return "none"
        one, other = names[:2]
        if re.match(r"(?:on|in|seen|which)", low):  # "on which side of the dog is the cat"
            one, other = other, one
        return next((how for how in ("left", "right", "above", "below") if _holds(words, one, how, other)), "none")
    return next((cell for label, cell in words.objects if names and label == names[0]), "none")


def _choice(low: str, cell: str) -> str:
    if not cell:
        return "none"
    sides = ROWS if re.search(r"\b(?:top|upper|bottom|lower)\b", low) else COLUMNS
    return next((side for side in sides if side in cell.split()), "center")


def _category(word: str, words: Words) -> str:
    found = [name for name in words.names if word in categories_of(known_name(name))]
    return next(iter(found), "none")


def _holds(words: Words, one: str, how: str, other: str) -> bool:
    said = [(a, b, r) for a, r, b in words.relations if {a, b} == {one, other}]
    for a, _, relation in said:
        turn = a != one
        sides = {side for side in OPPOSITE if side in relation.split()}
        sides = {OPPOSITE[side] for side in sides} if turn else sides
        overlap = relation.split()[0] in ("overlapping", "inside", "on", "touching")
        if relation == "on":
            sides = {"below"} if turn else {"above"}
        true = set(sides)
        true |= {"touching"} if overlap else set()
        true |= {"beside"} if relation in ("left of", "right of", "next to") or "overlapping" in relation else set()
        true |= {relation} if relation in ("on", "inside") and not turn else set()
        if how in true:
            return True
    return False


def _apart(words: Words, one: str, how: str, other: str) -> bool:
    """Whether the cells of two things that no relation joins say that one is on that side of the other."""
    if how not in OPPOSITE or any({one, other} == {a, b} for a, _, b in words.relations):
        return False
    cells = {label: cell for label, cell in reversed(words.objects)}
    if one not in cells or other not in cells:
        return False
    first, second = ROWS if how in ("above", "below") else COLUMNS
    at = [(second in cells[name].split()) - (first in cells[name].split()) for name in (one, other)]
    return at[0] < at[1] if how in ("above", "left") else at[0] > at[1]


def _relation(low: str) -> tuple[str, str, str] | None:
    """Split a question at its relation: what stands before it, the relation, what stands after it."""
    for pattern, how in RELATIONS:
        # "in the middle" and "on the left" are places, "on the left of" is none.
        found = re.search(
            rf"\b(?:{pattern})\b(?! the (?:image|picture|photo|left|right|top|bottom|middle|center|upper))", low
        )
        if found and low[found.end() :].strip():
            return low[: found.start()], how, low[found.end() :]
    return None


def _place(low: str) -> str:
    return next((place for pattern, place in PLACES if re.search(rf"\b(?:{pattern})\b(?! of the)", low)), "")


def perceptions(samples: Sequence[Sample], recipe: str | None) -> list[Perception]:
    """Return what is perceived in each sample: its truths, or what a recipe's experts find."""
    if recipe is None:
        return [merge(list(sample.truths or ())) for sample in samples]
    settings = load_recipe(recipe).perception
    perceiver = Perceiver(
        settings.experts, options=settings.options, store=default_store(), time_limit=settings.time_limit
    )
    images = {id: image for s in samples for id, image in zip(s.image_ids, s.images, strict=False)}
    found = dict(zip(images, perceiver.perceive([read_image(image) for image in images.values()]), strict=True))
    return [merge([found[id] for id in sample.image_ids]) for sample in samples]


def main() -> None:
    """Print shares of right answers in per cent, by kind, with 95 % intervals over scenes."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="photographs", help="name of a registered data set")
    parser.add_argument("--split", default="tuning")
    parser.add_argument("--limit", type=int, help="at most this many questions, the first ones")
    parser.add_argument(
        "--recipe", help="whose experts look at the pictures; without it the words are those of the truth"
    )
    parser.add_argument("--wrong", type=int, default=0, metavar="N", help="also print N wrong answers with their words")
    options = parser.parse_args()
    samples = [s for s in registry().get_dataset(options.data)(options.split) if s.language == "en"][: options.limit]
    texts = [verbalize(found, style="compact") for found in perceptions(samples, options.recipe)]
    right: dict[str, list[tuple[bool, str]]] = defaultdict(list)
    wrong = options.wrong
    for sample, text in zip(samples, texts, strict=True):
        given = answer(sample.question, parse(text))
        good = exact_match(given, sample.answers)
        for kind in (sample.kind, "all"):
            right[kind].append((good, sample.image_ids[0]))
        if not good and wrong > 0:
            wrong -= 1
            print(f"{sample.question} -> {given}, not {' / '.join(sample.answers)}\n    {text}")
    for kind, results in sorted(right.items()):
        values, groups = zip(*results, strict=True)
        low, high = accuracy_interval(values, groups=groups)
        print(f"{kind:12} {100 * sum(values) / len(values):5.1f} [{100 * low:.1f}, {100 * high:.1f}] of {len(values)}")


if __name__ == "__main__":
    main()
