"""Load easy-VQA: 48,248 short questions about 5,000 drawn images of one shape, 64 x 64 pixels (Victor Zhou, MIT).

Knows: the data set's own layout (``{train,test}/questions.json`` and ``{train,test}/images/<id>.png``) and which of
its images we set aside for validation. The test split is the data set's own and is never trained or tuned on.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import moai
from moai.errors import AssetError, RecipeError, nearest
from moai.plugin_api import resolve
from moai.types import Conversation, Sample, Turn

SPLITS = ("train", "validation", "test")
VALIDATION_SHARE = 0.1  # of the train images
SHAPES = frozenset({"circle", "rectangle", "triangle"})
COLORS = frozenset({"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"})


def easy_vqa(
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
    folder: str | Path | None = None,
    captions: bool = False,
) -> list[Sample]:
    """Return the questions of one split, in the data set's order, or captions of its images.

    Args:
        split: ``"train"``, ``"validation"`` (a fixed 10 % of the train images, with all their questions), ``"test"``.
        limit: draw at most this many questions at random without replacement; a larger limit contains a smaller one.
        seed: of that draw.
        folder: the data set's ``data`` folder; without it, the pinned wheel ``easy-vqa``.
        captions: return a document per image instead, of the image and "A red circle.", all of whose text is learnt.
            They are made of the open questions; an image whose questions do not tell both colour and shape has none.

    Raises:
        RecipeError: unknown split, or a limit below 1.
        AssetError: the data set is not there or cannot be read.
    """
    if split not in SPLITS:
        raise RecipeError(f"the data set easy-vqa has no split '{split}'{nearest(split, SPLITS)}")
    if limit is not None and limit < 1:
        raise RecipeError(f"easy-vqa: the limit is {limit}; give at least 1, or none for the whole split")
    root = _locate(folder) / ("test" if split == "test" else "train")
    samples = _read(root)
    if split != "test":
        samples = _part(samples, validation=split == "validation")
    if captions:
        samples = _captions(samples)
    return samples if limit is None else _draw(samples, limit, seed)


@moai.hookimpl
def register_datasets(register):
    """Register ``easy-vqa``."""
    register("easy-vqa", easy_vqa)


def kind_of(answer: str) -> str:
    """Return the answer type: ``"yes/no"``, ``"shape"`` or ``"color"``."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in SHAPES else "color"


def _locate(folder: str | Path | None) -> Path:
    if folder is not None:
        return Path(folder).expanduser()
    return resolve("wheel:easy-vqa")


def _read(root: Path) -> list[Sample]:
    path = root / "questions.json"
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))
        return [_sample(root, index, row) for index, row in enumerate(rows)]
    except OSError as error:
        raise AssetError(
            f"cannot read {path}: {error.strerror}; give the folder that holds 'train' and 'test'"
        ) from error
    except (ValueError, TypeError) as error:
        raise AssetError(f"{path} is damaged ({error}); copy the data set again") from error


def _sample(root: Path, index: int, row: Any) -> Sample:
    question, answer, image = row
    return Sample.from_question(
        id=f"easy-vqa/{root.name}/{index}",
        image=root / "images" / f"{int(image)}.png",
        image_id=f"easy-vqa/{root.name}/{int(image)}",
        question=question,
        answer=answer,
        kind=kind_of(answer),
    )


def _captions(samples: list[Sample]) -> list[Sample]:
    """Make a caption of each image of what its open questions and their answers name."""
    told: dict[str, set[str]] = {}
    first: dict[str, Sample] = {}
    for sample in samples:
        [image] = sample.image_ids
        first.setdefault(image, sample)
        if sample.kind != "yes/no":
            told.setdefault(image, set()).update(f"{sample.question} {sample.answer}".replace("?", "").split())
    made = []
    for image, words in told.items():
        color, shape = words & COLORS, words & SHAPES
        if len(color) == len(shape) == 1:
            turn = Turn("text", (moai.IMAGE, f"A {color.pop()} {shape.pop()}.\n"))
            conversation = Conversation((turn,), first[image].images, "all")
            made.append(Sample(f"{image}/caption", conversation, (image,), "caption"))
    return made


def _part(samples: list[Sample], *, validation: bool) -> list[Sample]:
    images = _ranked({image for s in samples for image in s.image_ids}, "validation")
    held_out = set(images[: round(len(images) * VALIDATION_SHARE)])
    return [s for s in samples if (s.image_ids[0] in held_out) == validation]


def _draw(samples: list[Sample], limit: int, seed: int) -> list[Sample]:
    drawn = set(_ranked((s.id for s in samples), f"draw {seed}")[:limit])
    return [s for s in samples if s.id in drawn]


def _ranked(names: Iterable[str], salt: str) -> list[str]:
    """Order names by a salted hash: a draw that is the same in every Python version and nests by length."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).digest())
