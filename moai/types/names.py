"""Compare names that experts give: the same words, a synonym, or a kind and what is of it.

Knows: English nouns that detectors, segmenters and taggers use for the same things.
"""

from __future__ import annotations

import re

# Of each group any name stands for the first.
_SYNONYMS = (
    "couch = sofa, settee", "tv = television, television set, tv monitor, tvmonitor, monitor, screen",
    "cell phone = mobile phone, cellphone, smartphone, mobile, phone, cellular telephone, telephone",
    "bicycle = bike", "motorcycle = motorbike", "airplane = aeroplane, plane, airliner", "car = automobile, motorcar",
    "dining table = diningtable, table", "potted plant = pottedplant, houseplant, plant", "donut = doughnut",
    "laptop = notebook computer, laptop computer", "traffic light = traffic signal, stoplight", "rug = carpet",
    "fire hydrant = hydrant", "refrigerator = fridge", "hair drier = hair dryer, hairdryer, blow dryer",
    "handbag = purse, hand bag", "backpack = rucksack", "suitcase = luggage", "frisbee = flying disc",
    "wine glass = wineglass", "cup = mug", "street sign = road sign, traffic sign", "hotdog = hot dog",
    "trash can = garbage can, dustbin, bin", "sidewalk = pavement", "truck = lorry", "ship = vessel",
    "person = people, human, pedestrian, individual", "man = men, gentleman", "woman = women, lady",
    "child = kid, children", "teddybear = teddy bear, teddy", "remote = remote control", "tap = faucet",
    "stove = cooker", "sneakers = trainers", "picture = painting", "curtain = drape", "bunny = rabbit",
)  # fmt: skip
# A kind, and names of what is of it.
_KINDS = (
    "person: man, woman, child, boy, girl, baby, toddler, player, rider, skier, surfer, skateboarder, bride, groom",
    "dog: puppy, terrier, retriever, poodle, beagle, bulldog, corgi, collie, spaniel", "cat: kitten, tabby, tabby cat",
    "bird: parrot, pigeon, seagull, gull, duck, goose, sparrow, crow, owl", "car: taxi, cab, suv, sedan, minivan",
    "truck: pickup, pickup truck, van", "boat: ship, sailboat, canoe, kayak, rowboat", "cow: bull, calf, ox, cattle",
    "chair: armchair, stool", "sheep: lamb, ram", "horse: pony, foal", "sign: street sign, stop sign, signboard",
    "bear: polar bear, brown bear", "food: pizza, sandwich, cake", "bag: handbag, backpack, suitcase",
)  # fmt: skip


def _table(rows: tuple[str, ...], separator: str) -> dict[str, str]:
    split = [row.split(separator) for row in rows]
    return {name: first.strip() for first, others in split for name in map(str.strip, others.split(","))}


_FIRST, _KIND = _table(_SYNONYMS, "="), _table(_KINDS, ":")
_LONGEST = 2  # words of a name in the tables


def words_of(name: str) -> frozenset[str]:
    """Return the words of a name, without those that the COCO panoptic class names end in ("wall-other-merged")."""
    words = re.findall(r"\w+", name.casefold())
    kept = [word for word in words if word not in ("merged", "other", "stuff")] or words
    return frozenset(_replaced(kept, _FIRST))


def same_thing(one: str, other: str) -> bool:
    """Return whether two names may be of one thing.

    The words of one contain those of the other ("red car", "car"), by synonyms ("sofa", "brown couch"), or where one
    is a kind of the other ("woman", "person").
    """
    first, second = words_of(one), words_of(other)
    if not first or not second:
        return False
    pairs = ((first, second), (_of_kind(first), second), (first, _of_kind(second)))
    return any(left <= right or right <= left for left, right in pairs)


def longer(one: str, other: str) -> bool:
    """Return whether the second of two names says more: all words of the first and others, or a kind of it."""
    first, second = words_of(one), words_of(other)
    kind = _of_kind(second)
    return first < second or (kind != second and first <= kind)


def _of_kind(words: frozenset[str]) -> frozenset[str]:
    """Replace a name by its kind: ``{"tall", "woman"}`` is ``{"tall", "person"}``."""
    for name, kind in _KIND.items():
        if (parts := frozenset(name.split())) <= words:
            return words - parts | frozenset(kind.split())
    return words


def _replaced(words: list[str], table: dict[str, str]) -> list[str]:
    """Replace the noun, the last words of a name, by the first of its synonyms."""
    for length in range(min(_LONGEST, len(words)), 0, -1):
        if (first := table.get(" ".join(words[-length:]))) is not None:
            return [*words[:-length], *first.split()]
    return words
