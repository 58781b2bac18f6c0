"""Answer the same questions under several conditions, so that nothing but the perception differs.

Knows: samples, perceptions and something that answers batches; nothing of models. A model that scores alike with its
own perception and with another image's does not read it, however low its loss is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from moai.data.perceive import images_of
from moai.errors import MoaiError, RecipeError
from moai.evaluation.conditions import MOVED, OTHER_IMAGE, View, derange, expand_conditions, left_out, make_views
from moai.evaluation.prompting import Answered, Answerer, Prompts, Rationale
from moai.perception.words.verbalize import verbalize
from moai.types import Perception, Sample, describe, merge

if TYPE_CHECKING:
    from moai.evaluation.journal import Journal

STANDARD = ("on", "off", "shuffled")
Metric = Callable[[str, str], float]  # prediction, answer -> a score in [0, 1]


@dataclass(frozen=True)
class Record:
    """Hold one question with its answer under every condition."""

    id: str
    image_id: str  # of several images joined by " + "; empty without any
    kind: str
    question: str
    answer: str
    predictions: dict[str, str] = field(default_factory=dict)  # condition -> the model's text
    donor: str | None = None  # the image whose perception was given under "shuffled"
    same_words: bool | None = None  # the donor's perception reads exactly like this image's own
    same_objects: bool | None = None  # it names the same objects and texts, wherever they are
    language: str = "en"  # of the question
    scores: dict[str, float] = field(default_factory=dict)  # condition -> the data set's own metric, if it has one
    tokens: dict[str, dict[str, int]] = field(default_factory=dict)  # condition -> prompt, auxiliary, words
    confidence: dict[str, float] | None = None  # mean and least score of the findings; None without any
    answers: list[str] = field(default_factory=list)  # further accepted answers, where there are any
    choices: dict[str, dict[str, float]] = field(default_factory=dict)  # condition -> choice -> log probability
    rationales: dict[str, list[str]] = field(default_factory=dict)  # condition -> what the model said of the images

    @property
    def cluster(self) -> str:
        """Whose questions are resampled together: the images, or the question alone where there is none."""
        return self.image_id or self.id

    @property
    def accepted(self) -> list[str]:
        """All accepted answers."""
        return [self.answer, *self.answers]

    def to_dict(self) -> dict[str, Any]:
        """Return the record as plain JSON types."""
        return asdict(self)


def run_conditions(
    answerer: Answerer,
    samples: Sequence[Sample],
    perceptions: Mapping[str, Perception],
    conditions: Sequence[str] = STANDARD,
    batch_size: int = 32,
    seed: int = 0,
    progress: Callable[[int], None] | None = None,
    max_new_tokens: int = 8,
    *,
    reduced: Mapping[str, Mapping[str, Perception]] | None = None,
    metric: Metric | None = None,
    journal: Journal | None = None,
    rationale: Rationale | None = None,
) -> list[Record]:
    """Answer every sample under every condition: same prompts, same order, same batches.

    Samples are batched by length, which pads less. The records come back in the order of ``samples``.

    Args:
        answerer: a loaded model, for instance ``moai.load(run)``.
        samples: the questions; several may share an image.
        perceptions: ``image_id`` -> perception, for every image in ``samples``.
        conditions: see ``moai.evaluation.conditions``; without repetition.
        batch_size: questions per call.
        seed: of the derangement that picks, for every image, another image's perception, and of the noise.
        progress: called with the number of questions just answered, in all ``len(samples) * len(conditions)``.
        max_new_tokens: length limit of an answer.
        reduced: expert -> ``image_id`` -> the others' perception without it, for each ``without:EXPERT``.
        metric: the data set's own, beside exact match.
        rationale: describe the images first, and answer with the description.
        journal: where finished batches are written; those it holds already are not answered again.

    Raises:
        RecipeError: an unknown condition, ``oracle`` without ground truth, or a batch size below 1.
        MoaiError: no samples, one without an answer, an image without a perception, or ``shuffled`` or
            ``other-image`` with fewer than two images.
        ImageError: an image cannot be read.
    """
    reduced = reduced or {}
    conditions = expand_conditions(conditions, list(reduced) or left_out(conditions))
    _check_questions(samples, batch_size)
    views = make_views(conditions, samples, perceptions, reduced, seed)
    donors, others = _donors(samples, views, seed)
    builder = _RecordBuilder(perceptions, donors if "shuffled" in views else {}, metric)
    records = {row["id"]: Record(**row) for row in (journal.rows if journal else ())}
    ordered = sorted(samples, key=lambda sample: len(sample.question))
    for start in range(0, len(ordered), batch_size):
        batch = ordered[start : start + batch_size]
        if all(sample.id in records for sample in batch):
            if progress is not None:
                progress(len(batch) * len(views))
            continue
        answered = _answer(answerer, batch, views, others, max_new_tokens, rationale, progress)
        made = [builder.record(s, {c: rows[i] for c, rows in answered.items()}) for i, s in enumerate(batch)]
        records.update({record.id: record for record in made})
        if journal is not None:
            journal.append(record.to_dict() for record in made)
    return [records[s.id] for s in samples]


def confidence(perception: Perception) -> dict[str, float] | None:
    """Return ``mean`` and ``least`` score of all findings, and their number as ``items``; None without findings."""
    findings = (*perception.segments, *perception.detections, *perception.relations, *perception.texts)
    scores = [float(item.score) for item in findings]
    if not scores:
        return None
    return {"mean": sum(scores) / len(scores), "least": min(scores), "items": len(scores)}


def _donors(samples: Sequence[Sample], views: Mapping[str, View], seed: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Return image id -> the other image's id, and -> that image; both are empty where no condition needs them."""
    if not any(name in views for name in MOVED):
        return {}, {}
    images = images_of(samples)
    told = next((sample.id for sample in samples if sample.perceived), None)
    if told is not None and OTHER_IMAGE in views:
        raise RecipeError(f"'{OTHER_IMAGE}' needs images, and sample '{told}' has none; leave the condition out")
    donors = derange({id for sample in samples for id in sample.image_ids}, seed)
    return donors, {image: images[donor] for image, donor in donors.items() if donor in images}


def _check_questions(samples: Sequence[Sample], batch_size: int) -> None:
    """Refuse an evaluation without questions, a question without an answer to score by, and batches of nothing."""
    if batch_size < 1:
        raise RecipeError(f"the batch size is {batch_size}; give at least 1")
    if not samples:
        raise MoaiError("there is no question to answer; check the split and its limit")
    unanswered = [sample.id for sample in samples if not sample.answers]
    if unanswered:
        raise MoaiError(
            f"{len(unanswered)} of {len(samples)} samples have no answer to score by, first '{unanswered[0]}'; "
            "give them answers, or leave them out of the split"
        )


def _answer(
    answerer,
    batch,
    views: Mapping[str, View],
    others: Mapping[str, Any],
    max_new_tokens: int,
    rationale: Rationale | None,
    progress,
) -> dict[str, list[Answered]]:
    """Return condition -> the answer to each question; ``others`` are the other images by id."""
    own, answered = Prompts(batch), {}
    for condition, view in views.items():
        prompts = Prompts(batch, others) if condition == OTHER_IMAGE else own
        answered[condition] = prompts.answer(answerer, view, max_new_tokens, rationale)
        if progress is not None:
            progress(len(batch))
    return answered


class _RecordBuilder:
    """Build records from answers and from what is known of each image."""

    def __init__(self, perceptions: Mapping[str, Perception], donors: Mapping[str, str], metric: Metric | None) -> None:
        self.donors, self.metric = donors, metric
        self.alike = {image: _compare(perceptions[image], perceptions[donor]) for image, donor in donors.items()}
        self.perceptions = perceptions

    def record(self, s: Sample, answered: Mapping[str, Answered]) -> Record:
        answer = s.answer or s.answers[0]  # a conversation that ends with the question has none of its own
        texts = {condition: one.text for condition, one in answered.items()}
        alike = [self.alike[image] for image in s.image_ids if image in self.alike]
        same = tuple(all(part) for part in zip(*alike, strict=True)) if alike else (None, None)
        found = [self.perceptions[image] for image in s.image_ids if image in self.perceptions]
        return Record(
            s.id,
            " + ".join(s.image_ids),
            s.kind,
            s.question,
            answer,
            texts,
            " + ".join(self.donors[image] for image in s.image_ids) if alike else None,
            *same,
            language=s.language,
            scores={c: self._score(text, s.answers) for c, text in texts.items()} if self.metric else {},
            tokens={c: one.tokens for c, one in answered.items() if one.tokens},
            confidence=confidence(merge(found)) if found else None,
            answers=[other for other in s.answers if other != answer],
            choices={c: one.scores for c, one in answered.items() if one.scores},
            rationales={c: one.rationales for c, one in answered.items() if one.rationales},
        )

    def _score(self, text: str, answers: Sequence[str]) -> float:
        return max(float(self.metric(text, answer)) for answer in answers)


def _compare(own: Perception, other: Perception) -> tuple[bool, bool]:
    return verbalize(own) == verbalize(other), _objects(own) == _objects(other)


def _objects(perception: Perception) -> list[str]:
    names = [describe(s) for s in perception.segments] + [d.label for d in perception.detections]
    return sorted(names + [line.text for line in perception.texts])
