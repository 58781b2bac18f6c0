"""Choose a picture of a split and questions about it, to show what experts find in it and what a model answers.

Knows: samples. The choice follows their order alone, so that it is neither drawn nor made by what comes out right.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from PIL.Image import Image

from moai.images import read_image
from moai.types import Sample

LOOKED_AT = 1000  # samples: a corpus of millions is not read for an example
QUESTIONS = 3


@dataclass(frozen=True)
class Example:
    """Hold a picture and questions about it.

    Attributes:
        image: as the samples have it, whatever ``moai.read_image`` takes.
        samples: one to three, each with one image, a question and an answer, and each of another kind.
    """

    image: Any
    samples: tuple[Sample, ...]

    def save_picture(self, path: Path) -> Image:
        """Read the picture, save it as it is perceived (upright, RGB) into a PNG file, and return it.

        The file's folder is made where it is missing.

        Raises:
            ImageError: the image cannot be read.
        """
        picture = read_image(self.image)
        path.parent.mkdir(parents=True, exist_ok=True)
        picture.save(path)
        return picture


def find_example(samples: Iterable[Sample]) -> Example | None:
    """Choose the first picture about which three questions are asked, else the first that is asked about.

    Of its questions one of each kind is taken, at most three: those first whose answer is neither yes nor no, which
    are hardly answered right by chance.

    Args:
        samples: of a split; the first 1,000 are looked at.

    Returns:
        The example; ``None`` where no sample asks about one picture.

    Raises:
        DataError: a row that cannot be read stands before the picture; names its place.
    """
    pictures: dict[str, list[Sample]] = {}
    for sample in filter(_asks_about_one_picture, islice(samples, LOOKED_AT)):
        pictures.setdefault(sample.image_ids[0], []).append(sample)
    if not pictures:
        return None
    asked = next((found for found in pictures.values() if len(found) >= QUESTIONS), next(iter(pictures.values())))
    by_kind: dict[str, Sample] = {}
    for sample in sorted(asked, key=_is_yes_or_no):  # which keeps the order of the others
        by_kind.setdefault(sample.kind, sample)
    return Example(asked[0].images[0], tuple(by_kind.values())[:QUESTIONS])


def _asks_about_one_picture(sample: Sample) -> bool:
    if sample.choices or not sample.answer:
        return False
    return len(sample.images) == 1 == len(sample.conversation.prompt.images)


def _is_yes_or_no(sample: Sample) -> bool:
    return sample.answer.strip().rstrip(".").lower() in ("yes", "no")
