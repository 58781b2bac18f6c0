"""The same questions answered under several conditions, so that only what the experts saw differs.

Knows: samples, perceptions and something that answers batches; nothing of models. ``on`` gives each image its own
perception, ``off`` none, ``shuffled`` that of another image: a model that scores alike on ``on`` and ``shuffled``
does not read its perception, however healthy its loss looks.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from moai.data.samples import Sample
from moai.errors import MoaiError, RecipeError, nearest
from moai.images import read_image
from moai.perception.types import Perception, describe
from moai.perception.verbalize import verbalize

if TYPE_CHECKING:
    from PIL.Image import Image

CONDITIONS = ("on", "off", "shuffled")


class Answerer(Protocol):
    """What ``run_conditions`` needs of a model."""

    def answer_batch(
        self,
        images: list[Image],
        questions: list[str],
        perceptions: list[Perception | None],
        max_new_tokens: int = 8,
    ) -> list[str]: ...


@dataclass(frozen=True)
class Record:
    """One question with its answer under every condition."""

    id: str
    image_id: str
    kind: str
    question: str
    answer: str
    predictions: dict[str, str] = field(default_factory=dict)  # condition -> the model's text
    donor: str | None = None  # the image whose perception was given under "shuffled"
    same_words: bool | None = None  # the donor's perception reads exactly like this image's own
    same_objects: bool | None = None  # it names the same objects and texts, wherever they are

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def run_conditions(
    answerer: Answerer,
    samples: Sequence[Sample],
    perceptions: Mapping[str, Perception],
    conditions: Sequence[str] = CONDITIONS,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    max_new_tokens: int = 8,
) -> list[Record]:
    """Answer every sample under every condition: same prompts, same order, same batches.

    Samples are batched by length, which pads less; all conditions get the same batches, so that nothing but the
    perception is apart. The records come back in the order of ``samples``.

    Args:
        answerer: a loaded model, for instance ``moai.load(run)``.
        samples: the questions; several may share an image.
        perceptions: ``image_id`` -> what the experts saw, for every image in ``samples``.
        conditions: out of ``CONDITIONS``, without repetition.
        batch_size: questions per call.
        seed: of the derangement that picks, for every image, another image's perception.
        progress: called after each batch with the number of questions just answered; these add up to
            ``len(samples) * len(conditions)``.
        max_new_tokens: length limit of an answer.

    Raises:
        RecipeError: an unknown condition, or a batch size below 1.
        MoaiError: no samples, an image without a perception, or ``shuffled`` with fewer than two images.
        ImageError: an image cannot be read.
    """
    _check(samples, perceptions, conditions, batch_size)
    donors = derange({s.image_id for s in samples}, seed) if "shuffled" in conditions else {}
    alike = {image: _compare(perceptions[image], perceptions[donor]) for image, donor in donors.items()}
    records: dict[str, Record] = {}
    ordered = sorted(samples, key=lambda sample: len(sample.question))
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        images, questions = _read_images(batch), [s.question for s in batch]
        answers: dict[str, list[str]] = {}
        for condition in conditions:
            given = [_given(condition, s.image_id, perceptions, donors) for s in batch]
            answers[condition] = answerer.answer_batch(images, questions, given, max_new_tokens=max_new_tokens)
            if len(answers[condition]) != len(batch):
                raise MoaiError(f"the model gave {len(answers[condition])} answers to {len(batch)} questions")
            if progress is not None:
                progress(len(batch))
        for row, s in enumerate(batch):
            texts = {condition: answers[condition][row] for condition in conditions}
            donor, same = donors.get(s.image_id), alike.get(s.image_id, (None, None))
            records[s.id] = Record(s.id, s.image_id, s.kind, s.question, s.answer, texts, donor, *same)
    return [records[s.id] for s in samples]


def _read_images(batch: Sequence[Sample]) -> list[Image]:
    pictures: dict[str, Image] = {}
    for sample in batch:
        if sample.image_id not in pictures:
            pictures[sample.image_id] = read_image(sample.image)
    return [pictures[sample.image_id] for sample in batch]


def derange(image_ids: Iterable[str], seed: int) -> dict[str, str]:
    """Give every image another image's id, each id used once; depends on the set of ids and the seed only.

    Raises:
        MoaiError: fewer than two images.
    """
    ids = sorted(image_ids)
    if len(ids) < 2:
        raise MoaiError("the condition 'shuffled' needs at least two images; evaluate more, or leave the condition out")
    mixed, rng = list(ids), random.Random(seed)
    for last in range(len(mixed) - 1, 0, -1):  # Sattolo's shuffle: one single cycle, so that no image stays in place
        other = rng.randrange(last)
        mixed[last], mixed[other] = mixed[other], mixed[last]
    return dict(zip(ids, mixed, strict=True))


def _given(
    condition: str, image_id: str, perceptions: Mapping[str, Perception], donors: Mapping[str, str]
) -> Perception | None:
    if condition == "off":
        return None
    return perceptions[donors[image_id] if condition == "shuffled" else image_id]


def _compare(own: Perception, other: Perception) -> tuple[bool, bool]:
    return verbalize(own) == verbalize(other), _objects(own) == _objects(other)


def _objects(perception: Perception) -> list[str]:
    names = [describe(s) for s in perception.segments] + [d.label for d in perception.detections]
    return sorted(names + [line.text for line in perception.texts])


def _check(
    samples: Sequence[Sample], perceptions: Mapping[str, Perception], conditions: Sequence[str], batch_size: int
) -> None:
    for condition in conditions:
        if condition not in CONDITIONS:
            raise RecipeError(f"there is no condition '{condition}'{nearest(condition, CONDITIONS)}")
    if not conditions or len(set(conditions)) != len(conditions):
        raise RecipeError(f"name each condition once, at least one; known: {', '.join(CONDITIONS)}")
    if batch_size < 1:
        raise RecipeError(f"the batch size is {batch_size}; give at least 1")
    if not samples:
        raise MoaiError("there is no question to answer; check the split and its limit")
    lacking = sorted({s.image_id for s in samples} - set(perceptions))
    if lacking and set(conditions) != {"off"}:
        raise MoaiError(f"{len(lacking)} images have no perception, first '{lacking[0]}'; perceive them first")
