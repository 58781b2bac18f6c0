"""Leave each fact of a perception out, and ask again: which facts an answer rests on.

Knows: perceptions, words and answers, not the mixers. Perception is discrete, so that this needs no approximation: the
model is given the perception without the fact, in the words that it would then have been given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from moai.errors import PromptError
from moai.images import read_image
from moai.perception.words.token_budget import Dropped, Fact, facts_of, without_facts
from moai.types import Conversation, Perception, Segment

if TYPE_CHECKING:
    from moai.answering import Augmented

Perceptions = Sequence[Perception | None]  # one per image of the conversation


@dataclass(frozen=True)
class AblatedFact:
    """Hold a fact that was left out, and what the model says without it.

    Attributes:
        image: the number of its image in the conversation, from 0.
        role: of the experts that find such facts.
        number: its place among the facts of its role in the image's perception; sentences of ``notes`` are numbered
            apart.
        fact: itself.
        read: whether the model was given it. One that did not fit into the words has nothing to take away.
        answer: to the same prompt without it.
        logprob: log probability of the first answer without it.
    """

    image: int
    role: str
    number: int
    fact: Fact
    read: bool
    answer: str
    logprob: float


@dataclass(frozen=True)
class FactAblation:
    """Hold an answer, its log probability, and the facts that were left out, those it rests on most first."""

    answer: str
    logprob: float
    facts: tuple[AblatedFact, ...]

    def fall(self, fact: AblatedFact) -> float:
        """Compute by how much the answer's probability falls without a fact, in [-1, 1]; below zero where it rises."""
        return math.exp(self.logprob) - math.exp(fact.logprob)


def ablate_facts(
    run: Augmented,
    conversation: Conversation,
    perceptions: Perceptions,
    answer: str | None = None,
    *,
    max_new_tokens: int = 16,
    batch_size: int = 16,
    progress: Callable[[int, int], None] | None = None,
) -> FactAblation:
    """Leave each fact out in turn, ask again, and rank the facts by how much the answer's probability falls.

    Only the fact itself is left out: relations and counts that were made of it stay. A thing that two experts found is
    two facts, and the answer may rest on both without falling when either is left out.

    Args:
        run: of ``moai.load``.
        conversation: up to where the answer begins.
        perceptions: for each image one, or ``None``.
        answer: whose probability is computed; left out, the one that the model gives.
        max_new_tokens: the longest answer without a fact.
        batch_size: prompts that are run together.
        progress: called after each batch with the number of facts that are done, and of all. An exception that it
            raises ends the ablation.

    Raises:
        PromptError: the answer is empty, so that its probability says nothing; or as ``Augmented.chat``.
        ImageError: an image cannot be read.
    """
    images = tuple(read_image(image) for image in conversation.images)
    conversation = Conversation(conversation.turns, images, conversation.loss)
    if answer is None:
        [answer] = run.answer([conversation], [perceptions], max_new_tokens)
    if not answer.strip():
        raise PromptError("the answer is empty, and nothing can take from its probability; give another answer")
    [logprob] = run.loglikelihood([conversation], [perceptions], [answer])
    listed = _without_each(run, perceptions)
    changed = [number for number, (_, _, _, read) in enumerate(listed) if read]
    results: dict[int, tuple[str, float]] = {}
    for start in range(0, len(changed), batch_size):
        part = changed[start : start + batch_size]
        asked, given = [conversation] * len(part), [listed[number][2] for number in part]
        texts = run.answer(asked, given, max_new_tokens)
        scores = run.loglikelihood(asked, given, [answer] * len(part))
        results.update(zip(part, zip(texts, scores, strict=True), strict=True))
        if progress is not None:
            progress(len(results), len(changed))
    facts = [
        AblatedFact(image, one.role, one.number, one.fact, read, *results.get(number, (answer, logprob)))
        for number, (image, one, _, read) in enumerate(listed)
    ]
    return FactAblation(answer, logprob, tuple(sorted(facts, key=lambda fact: fact.logprob)))


def _without_each(run: Augmented, perceptions: Perceptions) -> list[tuple[int, Dropped, list[Perception | None], bool]]:
    """List the facts with their image, the perceptions without each, and whether these differ for the model."""
    whole = _words(run, perceptions)
    listed = []
    for image, perception in enumerate(perceptions):
        if perception is None:
            continue
        for one in facts_of(perception):
            rest = list(perceptions)
            rest[image] = without_facts(perception, [one])
            drawn = isinstance(one.fact, Segment) and run.processor.perceptions.has_map(perception)
            listed.append((image, one, rest, drawn or _words(run, rest) != whole))
    return listed


def _words(run: Augmented, perceptions: Perceptions) -> str:
    found = [perception for perception in perceptions if perception is not None]
    return run.processor.verbalize(found).text if found else ""
