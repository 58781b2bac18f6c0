"""List the words of `scenes`: those printed in the pictures, and the names of colours and shapes.

Knows: vocabulary only. Every printed word is a common English noun of four to six letters; no word is in two lists,
and none is the name of a colour, a shape or a position.
"""

from __future__ import annotations

TRAIN_WORDS = tuple(
    """
    apple beach bread bridge camera chair cloud doctor eagle engine forest garden glass guitar horse house island
    king knife lemon market mouse music ocean onion paper phone piano plane plate queen river school sheep stone
    storm sugar summer table tiger train truck water whale wheel window winter clock
    """.split()
)
VALIDATION_WORDS = tuple(
    """
    honey butter cheese carrot pepper rabbit monkey snake desert valley castle temple ticket wallet button pencil
    hammer ladder mirror pillow basket candle shirt jacket
    """.split()
)
TEST_WORDS = tuple(
    """
    coffee potato tomato banana cherry spider turtle donkey pigeon meadow harbor palace tunnel letter puzzle needle
    rocket helmet saddle planet bottle bucket shovel violin
    """.split()
)
WORDS = {
    "train": TRAIN_WORDS,
    "validation": TRAIN_WORDS,
    "test": TRAIN_WORDS,
    "validation-unseen": VALIDATION_WORDS,
    "test-unseen": TEST_WORDS,
}
SPLITS = tuple(WORDS)

COLORS = {  # name -> sRGB; each drawn instance differs a little
    "red": (220, 30, 40),
    "orange": (255, 135, 10),
    "yellow": (250, 220, 20),
    "green": (35, 165, 60),
    "blue": (35, 80, 215),
    "purple": (140, 45, 175),
}
SHAPES = ("circle", "square", "triangle", "star")
NUMBERS = ("zero", "one", "two", "three", "four")
PLACES = ("top left", "top", "top right", "left", "center", "right", "bottom left", "bottom", "bottom right")

LANGUAGES = ("ko", "pt")  # of questions, beside English; in this order a question's language is drawn

KOREAN = {  # every shape ends in a consonant, so the particles after a name are always the same
    "red": "빨간",
    "orange": "주황색",
    "yellow": "노란",
    "green": "초록색",
    "blue": "파란",
    "purple": "보라색",
    "circle": "원",
    "square": "사각형",
    "triangle": "삼각형",
    "star": "별",
    "left of": "왼쪽",
    "right of": "오른쪽",
    "above": "위쪽",
    "below": "아래쪽",
    "upper": "위쪽",
    "lower": "아래쪽",
}


def in_korean(name: str) -> str:
    """Translate a name such as ``"red circle"`` word by word."""
    return " ".join(KOREAN[word] for word in name.split())
