"""Make `kosmos-twin`: KOSMOS-1's kinds of data in small, of easy-VQA's drawings (Victor Zhou, MIT).

Knows: the data set easy-vqa, of a plugin of its own, and the forms of KOSMOS-1's data: texts, captions, documents of
images and text in any order, and instructions without images. Questions are written as the paper writes them.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from moai import IMAGE, Conversation, Turn
from moai.errors import RecipeError, nearest
from moai.plugin_api import registry
from moai.types import Sample

KINDS = ("text", "captions", "documents", "instructions", "questions")
SHAPES = ("circle", "rectangle", "triangle")
COLOURS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")
MOST = 3  # images of a document; the paper's limit is five
ROUNDS = 3  # documents that a drawing is in, each time with another question
DESCRIBED = 0.3  # share of a document's images that a sentence describes, so that questions need the image


class Picture(NamedTuple):
    """One drawing: its questions, and its figure in words where the questions tell it."""

    samples: tuple[Sample, ...]
    figure: str | None


def kosmos_twin(split: str = "train", kind: str = "questions", images: bool = True, seed: int = 0) -> list[Sample]:
    """Return one kind of data of one split.

    Args:
        split: of easy-vqa. The splits ``"validation"`` and ``"test"`` have questions alone, so that a recipe's sources
            are evaluated on them.
        kind: ``"text"``, ``"captions"``, ``"documents"``, ``"instructions"`` (without images), or ``"questions"``.
        images: leave them out for a run that learns from text alone.
        seed: of what is drawn.

    Raises:
        RecipeError: an unknown kind or split.
    """
    if kind not in KINDS:
        raise RecipeError(f"kosmos-twin has no kind '{kind}'{nearest(kind, KINDS)}")
    if split != "train" and kind != "questions":
        return []
    pictures, name = _pictures(split), f"kosmos-twin/{kind}/{split}"
    if kind == "questions":
        return [_question(sample, images) for picture in pictures for sample in picture.samples]
    told, rng = [picture for picture in pictures if picture.figure], random.Random(f"{name} {seed}")
    if kind == "captions":
        return [
            _document(f"{name}/{n}", [(one, [f" An image of {one.figure}."])], images) for n, one in enumerate(told)
        ]
    if kind == "documents":
        return _documents(pictures, name, rng, images)
    if kind == "text":
        return [_text(f"{name}/{n}", told, rng) for n in range(len(told))]
    return [_instruction(f"{name}/{n}", one, rng) for n, one in enumerate(told)]


@lru_cache(maxsize=4)
def _pictures(split: str) -> list[Picture]:
    found: dict[str, list[Sample]] = {}
    for sample in registry().get_dataset("easy-vqa")(split):
        found.setdefault(sample.image_ids[0], []).append(sample)
    return [Picture(tuple(samples), _figure(samples)) for samples in found.values()]


def _figure(samples: Sequence[Sample]) -> str | None:
    """Name what a drawing shows, such as "a red circle", where its questions of both kinds tell it."""
    words = " ".join(f"{s.question} {s.answer}" for s in samples if s.kind in ("shape", "color")).replace("?", " ")
    colours, shapes = ([one for one in known if one in words.split()] for known in (COLOURS, SHAPES))
    return f"a {colours[0]} {shapes[0]}" if len(colours) == 1 and len(shapes) == 1 else None


def wording(sample: Sample) -> str:
    """Write a question as KOSMOS-1 does, up to where the answer begins, with the space that follows an image."""
    return f" Question: {sample.question} Answer:"


def _question(sample: Sample, images: bool) -> Sample:
    turns = (Turn("user", (IMAGE, wording(sample)) if images else wording(sample)), Turn("assistant", sample.answer))
    shown = (sample.images, sample.image_ids) if images else ((), ())
    return Sample(sample.id, Conversation(turns, shown[0]), shown[1], sample.kind)


def _solved(sample: Sample) -> str:
    return f"{wording(sample)} {sample.answer}"


def _document(id: str, parts: Sequence[tuple[Picture, list[str]]], images: bool) -> Sample:
    content = [piece for _, texts in parts for piece in ((IMAGE, *texts) if images else texts)]
    first = [picture.samples[0] for picture, _ in parts] if images else []
    shown = tuple(sample.images[0] for sample in first)
    whole = Conversation((Turn("text", tuple(content)),), shown, "all")
    return Sample(id, whole, tuple(sample.image_ids[0] for sample in first), "document")


def _documents(pictures: Sequence[Picture], name: str, rng: random.Random, images: bool) -> list[Sample]:
    """Deal pictures out to documents; of the documents with one image half are left out, as in the paper.

    A solved question is the last thing before the next image or the end. Nothing predicts an image, so that the end is
    what a model learns to write after an answer. Without images nothing would stand between two questions, so that each
    picture's texts are a document then.
    """
    order = [picture for _ in range(ROUNDS) for picture in rng.sample(pictures, len(pictures))]
    made: list[Sample] = []
    while order:
        count = rng.randint(1, MOST)
        part, order = order[:count], order[count:]
        parts = []
        for picture in part:
            told = picture.figure is not None and rng.random() < DESCRIBED
            parts.append((picture, [f" This is {picture.figure}."] * told + [_solved(rng.choice(picture.samples))]))
        if not images:
            made += [_document(f"{name}/{len(made) + n}", [one], images) for n, one in enumerate(parts)]
        elif count > 1 or rng.random() < 0.5:
            made.append(_document(f"{name}/{len(made)}", parts, images))
    return made


def _text(id: str, told: Sequence[Picture], rng: random.Random) -> Sample:
    """Write what a picture shows and a question about it, as text alone."""
    picture = rng.choice(told)
    return _document(
        id, [(picture, [f" This is {picture.figure}.", _solved(rng.choice(picture.samples))])], images=False
    )


def _instruction(id: str, picture: Picture, rng: random.Random) -> Sample:
    sample = rng.choice(picture.samples)
    asked = Turn("user", f" This is {picture.figure}.{wording(sample)}")
    return Sample(id, Conversation((asked, Turn("assistant", sample.answer))), (), "instruction")
