"""Make `words`: what experts would say of scenes that nobody has seen, with questions; no sample has a picture.

Knows: splits, numbers of scenes, and samples. What a scene holds is drawn in `scene`, what experts say of it comes from
`mistakes` and `experts`, its questions from `questions` and `wording`. The same seed gives the same samples everywhere.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any

from moai.errors import RecipeError, nearest
from moai.types import Conversation, Sample
from moai_words.experts import DERIVED, perceive
from moai_words.mistakes import RATES, make_mistakes
from moai_words.names import vocabulary
from moai_words.perceived import Perceived
from moai_words.questions import KINDS, Question, ask
from moai_words.scene import Scene, draw_scene
from moai_words.wording import word_question

SPLITS: Mapping[str, tuple[str, str]] = MappingProxyType(  # split -> part of its names and words, and of its phrasings
    {
        "train": ("train", "train"),
        "validation": ("validation", "validation"),
        "test": ("test", "test"),
        "validation-trained": ("train", "validation"),
        "test-trained": ("train", "test"),
    }
)
SCENES = {"train": 6000, "validation": 300, "test": 500, "validation-trained": 300, "test-trained": 500}
BATCH = 200  # scenes that experts perceive at once
SHARES: Mapping[str, float] = MappingProxyType({"ko": 0.1})


def words(
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
    scenes: int | None = None,
    languages: Mapping[str, float] = SHARES,
    kinds: Sequence[str] = KINDS,
    mistakes: Mapping[str, float] = RATES,
    derived: Mapping[str, Mapping[str, Any]] = DERIVED,
) -> list[Sample]:
    """Return the questions of one split, scene by scene.

    Args:
        split: ``"train"``, ``"validation"``, ``"test"``, ``"validation-trained"``, ``"test-trained"``. Phrasings of the
            last four are in no question of ``"train"``; names and printed words of the second and third in no scene.
        limit: at most this many questions, those of the first scenes; fewer scenes are then drawn.
        seed: of the scenes.
        scenes: how many scenes; more contain fewer. By default `SCENES`.
        languages: share of the questions that are asked in Korean, ``"ko"``; all others in English.
        kinds: of questions that are returned.
        mistakes: how often experts err, ``missed``, ``doubled``, ``misnamed``, ``misplaced``, ``misread``; what is left
            out is never. Questions are answered by what the experts say, right or wrong.
        derived: experts that build on others, with their options.

    Raises:
        RecipeError: unknown split or kind, or a number that is out of its range.
        ExpertError: an expert of ``derived`` is not installed, or does not take its options.
    """
    count = _check(split, limit, scenes, languages, kinds, mistakes)
    rates = {name: mistakes.get(name, 0.0) for name in RATES}
    found: list[Sample] = []
    for start in range(0, count, BATCH):
        numbers = range(start, min(start + BATCH, count))
        drawn = [_draw(split, seed, number, rates) for number in numbers]
        for number, scene, perception in zip(numbers, drawn, perceive(drawn, derived), strict=True):
            said = Perceived(scene, perception, vocabulary(SPLITS[split][0]))
            found += [s for s in _samples(said, split, seed, number, languages.get("ko", 0.0)) if s.kind in kinds]
        if limit is not None and len(found) >= limit:
            return found[:limit]
    return found


def _draw(split: str, seed: int, number: int, rates: Mapping[str, float]) -> Scene:
    part = SPLITS[split][0]
    rng = random.Random(f"words {split} {seed} {number}")
    return make_mistakes(rng, draw_scene(rng, part), part, rates)


def _samples(said: Perceived, split: str, seed: int, number: int, korean: float) -> Iterator[Sample]:
    rng = random.Random(f"questions {split} {seed} {number}")
    part, phrasings = SPLITS[split]
    scene = f"words/{split}/{seed}/{number:05d}"
    for at, question in enumerate(ask(said, part, rng)):
        text, language = word_question(question, phrasings, rng.random() < korean, rng)
        yield _sample(f"{scene}/{at}", scene, text, language, question, said)


def _sample(id: str, scene: str, text: str, language: str, question: Question, said: Perceived) -> Sample:
    return Sample(
        id,
        Conversation.ask(text, (), question.answer),
        (scene,),
        question.kind,
        question.answers,
        (said.perception,),
        language,
        f"Asked: {question.asked}" if question.asked else None,
    )


def _check(
    split: str,
    limit: int | None,
    scenes: int | None,
    languages: Mapping[str, float],
    kinds: Sequence[str],
    mistakes: Mapping[str, float],
) -> int:
    if split not in SPLITS:
        raise RecipeError(f"the data set words has no split '{split}'{nearest(split, SPLITS)}")
    for name, value in (("limit", limit), ("scenes", scenes)):
        if value is not None and value < 1:
            raise RecipeError(f"words: {name} is {value}; give at least 1, or none")
    named = (("kinds", kinds, KINDS), ("languages", languages, ("ko",)), ("mistakes", mistakes, tuple(RATES)))
    for option, given, known in named:
        for name in given:
            if name not in known:
                raise RecipeError(f"words: {option} has '{name}'{nearest(name, known)}")
    for option, shares in (("languages", languages), ("mistakes", mistakes)):
        for name, share in shares.items():
            if not 0 <= share <= 1:
                raise RecipeError(f"words: {option}.{name} is {share}; give a share between 0 and 1")
    return SCENES[split] if scenes is None else scenes
