"""Fit samples into the host's context, and refuse those of which nothing would be learnt.

Knows: samples and a processor. Whole exchanges are dropped from the end: no image's tokens and no answer is cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from moai.data.samples import Samples
from moai.errors import DataError, PromptError
from moai.types import Conversation, Sample

if TYPE_CHECKING:
    from moai.model.processor.processor import MoaiProcessor

IGNORED = -100


class Fitted(NamedTuple):
    """A sample that fits, and how many turns it lost."""

    sample: Sample
    dropped: int


def fit_context(sample: Sample, processor: MoaiProcessor, too_long: str = "refuse") -> Fitted:
    """Return a sample that fits the host's context.

    Args:
        sample: with its answers.
        processor: of the run.
        too_long: ``"refuse"``, or ``"drop_turns"``, which drops the last user turn and its answer until the rest fits.

    Raises:
        DataError: it does not fit, or no token of it carries loss.
    """
    conversation, dropped = sample.conversation, 0
    while True:
        try:
            encoded = processor.encode(conversation, labels=True)
            break
        except PromptError as error:
            shorter = _without_last_exchange(conversation) if too_long == "drop_turns" else None
            if shorter is None:
                raise DataError(str(error), "row too long for the context") from error
            dropped += len(conversation.turns) - len(shorter.turns)
            conversation = shorter
    if all(label == IGNORED for label in encoded.labels):
        raise DataError("no token carries loss; write an answer, or leave the row out", "empty loss mask")
    if not dropped:
        return Fitted(sample, 0)
    images = len(conversation.images) if sample.images else len(sample.image_ids)
    truths = None if sample.truths is None else sample.truths[:images]
    cut = replace(
        sample, conversation=conversation, image_ids=sample.image_ids[:images], truths=truths, answers=()
    )  # fmt: skip
    return Fitted(cut, dropped)


def _without_last_exchange(conversation: Conversation) -> Conversation | None:
    """Return the conversation without its last user turn and what follows; None where that leaves no exchange."""
    last = max((n for n, turn in enumerate(conversation.turns) if turn.role == "user"), default=0)
    turns = conversation.turns[:last]
    if not any(turn.role == "user" for turn in turns):
        return None
    return Conversation(turns, conversation.images[: sum(turn.images for turn in turns)], conversation.loss)


class ContextFit(Samples):
    """View samples as they fit the context of a processor's host.

    Attributes:
        shortened: turns that each sample lost which was read so far, ``(N,)``.
    """

    def __init__(self, samples: Sequence[Sample], processor: MoaiProcessor, too_long: str = "refuse") -> None:
        self.samples, self.processor, self.too_long = samples, processor, too_long
        self.digest = samples.digest if isinstance(samples, Samples) else ""
        self.shortened = np.zeros(len(samples), np.int32)

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Sample:
        sample = self.samples[index]
        try:
            fitted = fit_context(sample, self.processor, self.too_long)
        except DataError as error:
            raise DataError(f"{self.place(index)}: {error}", error.problem) from error
        self.shortened[index] = fitted.dropped
        return fitted.sample

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch of the samples."""
        return self.samples.epoch_rows(epoch) if isinstance(self.samples, Samples) else super().epoch_rows(epoch)

    def place(self, index: int) -> str:
        """Return where a sample's row stands."""
        return self.samples.place(index) if isinstance(self.samples, Samples) else f"sample {index + 1}"
