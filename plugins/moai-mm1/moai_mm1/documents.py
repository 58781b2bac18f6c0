"""Make MM1's three kinds of pre-training data of easy-VQA's drawings: captions, interleaved documents, and text.

Knows: samples of the data set ``easy-vqa``, which its own plugin brings. Nothing is drawn and nothing is downloaded:
what a drawing shows is read off the answers to its questions.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from moai.errors import RecipeError, nearest
from moai.plugin_api import registry
from moai.types import IMAGE, Conversation, Sample, Turn

OPEN = ("color", "shape")  # answer types that say what a drawing shows


def documents(split: str, kind: str = "captions", seed: int = 0, most: int = 3) -> list[Sample]:
    """Return documents of the drawings of one split, of all of whose text something is learnt.

    Args:
        split: the documents are of ``"train"``. Of any other split ``interleaved`` returns the questions themselves,
            which the documents teach to answer, and the other kinds return none.
        kind: ``"captions"``, one drawing and what it shows; ``"interleaved"``, up to ``most`` drawings, each with a
            question and its answer, as in a prompt with shots; ``"text"``, the same sentences without a drawing.
        seed: of which drawings stand together, and which questions are asked.
        most: drawings of an interleaved document; it has at least two.

    Raises:
        RecipeError: an unknown kind, or fewer than two drawings.
    """
    if kind not in _KINDS:
        raise RecipeError(f"the data set mm1-documents has no kind '{kind}'{nearest(kind, _KINDS)}")
    if most < 2:
        raise RecipeError(f"mm1-documents: an interleaved document has at least 2 drawings, not {most}")
    samples = registry().get_dataset("easy-vqa")(split)
    if split != "train":
        return list(samples) if kind == "interleaved" else []
    asked: dict[str, list[Sample]] = {}
    for sample in samples:
        asked.setdefault(sample.image_ids[0], []).append(sample)
    drawings = [own for own in asked.values() if {one.kind for one in own} >= set(OPEN)]
    draw = random.Random(f"{kind} {seed}")
    draw.shuffle(drawings)
    return _KINDS[kind](drawings, draw, most)


def caption_of(questions: Sequence[Sample]) -> str:
    """Return what a drawing shows, such as ``"a blue circle."``, by the answers to its questions."""
    color, shape = (next(one.answer for one in questions if one.kind == kind) for kind in OPEN)
    return f"a {color} {shape}."


def _captions(drawings: list[list[Sample]], draw: random.Random, most: int) -> list[Sample]:
    return [
        Sample(
            f"mm1-caption/{number}",
            Conversation((Turn("text", (IMAGE, caption_of(own))),), own[0].images, loss="all"),
            own[0].image_ids,
            "caption",
        )
        for number, own in enumerate(drawings)
    ]


def _interleaved(drawings: list[list[Sample]], draw: random.Random, most: int) -> list[Sample]:
    made, place = [], 0
    while place + 2 <= len(drawings):
        some = drawings[place : place + draw.randint(2, most)]
        asked = [_question(own, draw) for own in some]
        turns = [turn for one in asked for turn in one.conversation.turns]
        images = [one.images[0] for one in asked]
        ids = tuple(one.image_ids[0] for one in asked)
        conversation = Conversation(tuple(turns), tuple(images), loss="all")
        made.append(Sample(f"mm1-interleaved/{len(made)}", conversation, ids, "interleaved"))
        place += len(some)
    return made


def _question(own: list[Sample], draw: random.Random) -> Sample:
    """One question of a drawing, an open one as often as not: most of them are yes/no questions."""
    wanted = draw.random() < 0.5
    return draw.choice([one for one in own if (one.kind in OPEN) == wanted] or own)


def _text(drawings: list[list[Sample]], draw: random.Random, most: int) -> list[Sample]:
    made = []
    for number, own in enumerate(drawings):
        asked = _question(own, draw)
        turns = (Turn("user", (f"{caption_of(own)} {asked.question}",)), Turn("assistant", asked.answer))
        made.append(Sample(f"mm1-text/{number}", Conversation(turns, loss="all"), (), "text"))
    return made


_KINDS: dict[str, Callable[[list[list[Sample]], random.Random, int], list[Sample]]] = {
    "captions": _captions,
    "interleaved": _interleaved,
    "text": _text,
}
