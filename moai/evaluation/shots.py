"""Few-shot prompts: questions of the training split with their answers, before the question that is asked.

Knows: samples. Solved questions are turns of the conversation, so that the host's template writes all alike, and their
images are perceived and left out as the question's own are.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import replace

from moai.errors import PromptError, RecipeError
from moai.types import Choice, Conversation, Sample, Turn

SEARCH = 200  # samples of the training split that are looked at for each shot, before there are said to be none


def with_shots(samples: Sequence[Sample], training: Sequence[Sample], count: int, seed: int = 0) -> list[Sample]:
    """Put ``count`` solved questions before each sample's question.

    They are drawn at random from the training split; a draw depends on the sample's images, or on its id where it has
    none, and on the seed. So all questions about one image have the same shots. None shows an image of the sample.

    Args:
        samples: what is asked.
        training: the split that is drawn from.
        count: solved questions for each.
        seed: of the draw.

    Raises:
        RecipeError: the training split has fewer questions with an answer, or a sample is no question.
    """
    return [_with(sample, _drawn(sample, training, count, seed)) for sample in samples]


def check_fit(samples: Sequence[Sample], count: int, encode: Callable[[Conversation], object]) -> None:
    """Refuse shots with which a prompt does not fit into the host's context.

    Args:
        samples: with their shots.
        count: shots of each, for the message.
        encode: raises a :class:`PromptError` for a prompt that is too long.

    Raises:
        PromptError: names the sample.
    """
    for sample in samples:
        for prompt, _ in sample.prompts:
            try:
                encode(prompt)
            except PromptError as error:
                raise PromptError(f"{count} shots before '{sample.id}': {error}; or lower --shots") from error


def _drawn(sample: Sample, training: Sequence[Sample], count: int, seed: int) -> list[Sample]:
    draw = random.Random(f"shots {seed} {' '.join(sample.image_ids) or sample.id}")
    looked = draw.sample(range(len(training)), min(len(training), SEARCH * count))
    found: list[Sample] = []
    for index in looked:
        shot = training[index]
        alike = bool(shot.perceived) == bool(sample.perceived)  # both with images, or both without
        if alike and _is_solved(shot) and shot.id != sample.id and not set(shot.image_ids) & set(sample.image_ids):
            found.append(shot)
        if len(found) == count:
            return found
    raise RecipeError(
        f"{count} shots need as many questions with an answer in the training split, about other images, and "
        f"{len(found)} were found for '{sample.id}'; lower --shots, or train on questions as well"
    )


def _is_solved(shot: Sample) -> bool:
    return bool(shot.answer) and not shot.choices and any(turn.role == "user" for turn in shot.conversation.turns)


def _with(sample: Sample, shots: Sequence[Sample]) -> Sample:
    if sample.conversation.turns[0].role == "text":
        raise RecipeError(f"sample '{sample.id}' is a document and asks nothing; leave --shots out")
    before = [turn for shot in shots for turn in shot.conversation.turns if turn.role != "system"]
    shown = [image for shot in shots for image in shot.images]
    images = (*shown, *sample.images)
    whole = sample.conversation
    truths = None
    if sample.truths is not None and all(shot.truths is not None for shot in shots):
        truths = (*(truth for shot in shots for truth in shot.truths), *sample.truths)
    return replace(
        sample,
        conversation=Conversation(_after_system(whole.turns, before), images, whole.loss),
        image_ids=(*(name for shot in shots for name in shot.image_ids), *sample.image_ids),
        truths=truths,
        choices=tuple(_shifted(choice, before, len(shown)) for choice in sample.choices),
    )


def _shifted(choice: Choice, before: Sequence[Turn], images: int) -> Choice:
    numbers = (*range(images), *(number + images for number in choice.images))
    return replace(choice, turns=_after_system(choice.turns, before), images=numbers)


def _after_system(turns: Sequence[Turn], before: Sequence[Turn]) -> tuple[Turn, ...]:
    first = 1 if turns[0].role == "system" else 0
    return (*turns[:first], *before, *turns[first:])
