"""Solved validation samples, recorded once per run, for test-time re-routing; and an answerer set beside itself.

Knows: samples, perceptions, and a loaded model. What is done with the record is in ``moai.model.analysis.rerouting``.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from moai.answering import Augmented
from moai.data.collate import Collator
from moai.errors import RecipeError
from moai.evaluation.metrics import exact_match
from moai.images import read_image
from moai.model.analysis.rerouting import Record, Rerouting, gate_gradients, question_states
from moai.types import Perception, Sample

PLAIN = "plain"  # the condition "on" of the same model, its gates left alone


def recorded_half(samples: Sequence[Sample]) -> list[Sample]:
    """The samples of a split that may be recorded: those of about half of its images, whatever the split's order.

    The other half can be evaluated with re-routing, to choose neighbours and strength, without meeting itself.
    """
    return [sample for sample in samples if _half(sample)]


def other_half(samples: Sequence[Sample]) -> list[Sample]:
    """What ``recorded_half`` leaves."""
    return [sample for sample in samples if not _half(sample)]


def build_record(
    augmented: Augmented,
    samples: Sequence[Sample],
    perceptions: Mapping[str, Perception],
    *,
    batch_size: int = 32,
    max_new_tokens: int = 8,
    about: Mapping[str, Any] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Record:
    """Answer the samples with perception on, and record those that were answered right.

    Args:
        augmented: a run with mixers; its own re-routing is put aside meanwhile.
        samples: of which the answers are known, and which are not evaluated later.
        perceptions: image id -> what the experts saw.
        batch_size, max_new_tokens: as in the evaluation.
        about: what to keep beside the tensors.
        progress: called with the number of samples just done.

    Raises:
        RecipeError: none was solved, so there is nothing to record.
        HostError: the run has no mixers.
    """
    parts: list[tuple[torch.Tensor, torch.Tensor]] = []
    solved: list[str] = []
    ordered = sorted(samples, key=lambda sample: len(sample.question))
    with _aside(augmented):
        for start in range(0, len(ordered), batch_size):
            batch = ordered[start : start + batch_size]
            right = _solved(augmented, batch, perceptions, max_new_tokens)
            if right:
                parts.append(_measure(augmented, right, [perceptions[s.image_id] for s in right]))
                solved += [sample.id for sample in right]
            if progress is not None:
                progress(len(batch))
    if not parts:
        raise RecipeError(f"none of {len(samples)} samples was solved, so there is nothing to re-route by; record more")
    states, gradients = (torch.cat(tensors).cpu() for tensors in zip(*parts, strict=True))
    return Record(states, gradients, {**(about or {}), "asked": len(samples), "solved": solved})


@contextmanager
def rerouted(augmented: Augmented, rerouting: Rerouting | None) -> Iterator[None]:
    """The gates of every prompt answered inside the block are moved; behind it they are what they were."""
    before, augmented.rerouting = augmented.rerouting, rerouting
    try:
        yield
    finally:
        augmented.rerouting = before


def _aside(augmented: Augmented) -> Any:
    return rerouted(augmented, None)


def _solved(augmented: Augmented, batch, perceptions, max_new_tokens: int) -> list[Sample]:
    images, questions = [read_image(s.image) for s in batch], [s.question for s in batch]
    given = [perceptions[s.image_id] for s in batch]
    answers = augmented.answer_batch(images, questions, given, max_new_tokens=max_new_tokens)
    return [s for s, answer in zip(batch, answers, strict=True) if exact_match(answer, s.answer)]


def _measure(augmented: Augmented, samples: list[Sample], given: list[Perception]) -> tuple[torch.Tensor, torch.Tensor]:
    model, collator = augmented.model, Collator(augmented.processor)
    prompts, labelled = collator(samples, given, answers=False), collator(samples, given)
    prompts, labelled = ({k: v.to(model.device) for k, v in batch.items()} for batch in (prompts, labelled))
    return question_states(model, prompts), gate_gradients(model, labelled)


def _half(sample: Sample) -> bool:
    return hashlib.sha256(sample.image_id.encode("utf-8", errors="surrogatepass")).digest()[0] % 2 == 0
