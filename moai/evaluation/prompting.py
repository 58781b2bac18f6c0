"""Answer a batch of samples: by a generated text or by choosing, and perhaps with a rationale first.

Knows: samples, perceptions and something that answers; nothing of models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

from moai.data.perceive import images_of
from moai.errors import MoaiError
from moai.images import read_image
from moai.types import DESCRIBE, Conversation, Perception, Sample, describe_images, with_rationale

if TYPE_CHECKING:
    from PIL.Image import Image

    from moai.evaluation.conditions import View

Given = Sequence[Sequence[Perception | None]]


class Answerer(Protocol):
    """Define what an evaluation calls of a model.

    Where it also has ``token_counts(conversations, perceptions)``, the records count the tokens of each answer; samples
    with choices need ``loglikelihood(conversations, perceptions, answers)``, the log probability of each answer.
    """

    def answer(
        self, conversations: Sequence[Conversation], perceptions: Given, max_new_tokens: int = 8
    ) -> list[str]: ...


@dataclass(frozen=True)
class Rationale:
    """Ask in two calls, as KOSMOS-1 does: describe the images, then answer with the description in the prompt.

    Attributes:
        request: what the first call asks.
        max_new_tokens: the longest description.
    """

    request: str = DESCRIBE
    max_new_tokens: int = 64


@dataclass
class Answered:
    """Hold one answer, and how it came about."""

    text: str = ""
    tokens: dict[str, int] = field(default_factory=dict)  # of all prompts that it took
    scores: dict[str, float] = field(default_factory=dict)  # choice -> log probability of its word
    rationales: list[str] = field(default_factory=list)  # one per prompt that shows an image


class Prompts:
    """The prompts of a batch of samples, with every image read once for all conditions.

    Args:
        batch: the samples.
        others: image id -> the image that is shown in its place; None shows each sample its own.
    """

    def __init__(self, batch: Sequence[Sample], others: Mapping[str, Any] | None = None) -> None:
        pictures: dict[str, Image] = {}
        for name, image in images_of(batch).items():
            pictures[name] = read_image(image if others is None else others[name])
        self.batch, self.conversations, self.ids, self.starts = batch, [], [], [0]
        for sample in batch:
            for prompt, ids in sample.prompts:
                images = tuple(pictures[name] for name in ids) if prompt.images else ()
                self.conversations.append(Conversation(prompt.turns, images))
                self.ids.append(ids)
            self.starts.append(len(self.ids))

    def answer(
        self, answerer: Any, view: View, max_new_tokens: int, rationale: Rationale | None = None
    ) -> list[Answered]:
        """Answer each sample with the perceptions of one condition.

        Raises:
            MoaiError: the model gives another number of answers, or cannot score choices.
        """
        given = [[view[image] for image in ids] for ids in self.ids]
        asked, calls = self.conversations, []
        rationales: dict[int, str] = {}
        if rationale is not None:
            shown = [at for at, one in enumerate(asked) if one.turns[-1].images]
            first = [describe_images(asked[at], rationale.request) for at in shown]
            own = [given[at][len(given[at]) - len(one.images) :] for at, one in zip(shown, first, strict=True)]
            texts = self._in_parts(
                lambda *part: answerer.answer(*part, max_new_tokens=rationale.max_new_tokens), first, own
            )
            rationales = dict(zip(shown, texts, strict=True))
            asked = [with_rationale(one, rationales[at]) if at in rationales else one for at, one in enumerate(asked)]
            calls.append((shown, first, own))
        calls.append((range(len(asked)), asked, given))
        answered = self._texts(answerer, asked, given, max_new_tokens)
        self._count(answerer, calls, answered)
        for one, (start, end) in zip(answered, pairwise(self.starts), strict=True):
            one.rationales = [rationales[at] for at in range(start, end) if at in rationales]
        return answered

    def _texts(self, answerer: Any, asked: list[Conversation], given: Given, max_new_tokens: int) -> list[Answered]:
        spans = list(zip(self.batch, pairwise(self.starts), strict=True))
        plain = [start for sample, (start, _) in spans if not sample.choices]
        chosen = [at for sample, (start, end) in spans if sample.choices for at in range(start, end)]
        texts: dict[int, str] = {}
        if plain:
            found = answerer.answer([asked[n] for n in plain], [given[n] for n in plain], max_new_tokens=max_new_tokens)
            texts = dict(zip(plain, _all(found, len(plain)), strict=True))
        scores: dict[int, float] = {}
        if chosen:
            if not hasattr(answerer, "loglikelihood"):
                raise MoaiError("these samples are answered by choosing, and this model cannot score answers")
            words = [choice.word for sample in self.batch for choice in sample.choices]
            parts = ([asked[n] for n in chosen], [given[n] for n in chosen], words)
            scores = dict(zip(chosen, self._in_parts(answerer.loglikelihood, *parts), strict=True))
        made = []
        for sample, (start, _) in spans:
            named = {choice.name: scores[start + n] for n, choice in enumerate(sample.choices)}
            made.append(Answered(max(named, key=named.__getitem__) if named else texts[start], scores=named))
        return made

    def _in_parts(self, call: Any, *lists: Sequence[Any]) -> list[Any]:
        """Call with as many prompts at a time as there are samples in the batch: choices are many more."""
        size, found = len(self.batch), []
        for start in range(0, len(lists[0]), size):
            part = [one[start : start + size] for one in lists]
            found += _all(call(*part), len(part[0]))
        return found

    def _count(self, answerer: Any, calls: Sequence[tuple], answered: list[Answered]) -> None:
        count = getattr(answerer, "token_counts", None)
        if count is None:
            return
        owner = [number for number, (start, end) in enumerate(pairwise(self.starts)) for _ in range(start, end)]
        for places, asked, given in calls:
            for at, cost in zip(places, count(asked, given), strict=True):
                total = answered[owner[at]].tokens
                total.update({name: total.get(name, 0) + number for name, number in cost.items()})


def _all(found: list[Any], wanted: int) -> list[Any]:
    if len(found) != wanted:
        raise MoaiError(f"the model gave {len(found)} answers to {wanted} questions")
    return found
