"""One question about one image, with its answer: what every data set turns its records into."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from moai.perception.types import Perception


@dataclass(frozen=True)
class Sample:
    """A question-answer pair.

    ``image`` may be a path or anything else that ``moai.images.read_image`` takes; ``image_id`` is equal for two
    samples exactly when their images are the same; ``kind`` is the answer type, used to report accuracy by type;
    ``truth`` is what perfect experts would see, where the data set knows it; ``language`` is the question's;
    ``gloss`` is the question in the language of the perceptions, where it is asked in another: it is never shown to the
    model, but tells the guide of training which words are asked for.
    """

    id: str
    image: Path | bytes
    image_id: str
    question: str
    answer: str
    kind: str
    truth: Perception | None = None
    language: str = "en"
    gloss: str | None = None
