"""The state of one running forward pass: what its mixers need, and what they report.

Knows: tensors. The context belongs to the call, not to the model: it lies in a context variable, so that any number of
threads may run one model. Activation checkpointing runs hooks again in the backward pass, perhaps in another thread;
:func:`checkpoint_contexts` brings the call's own context back for it.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from moai.model.mixer.answers import AnswerInputs

_RUNNING: ContextVar[ForwardContext | None] = ContextVar("moai_forward", default=None)


@dataclass
class MixerInputs:
    """What the mixers of one forward pass need. ``R`` counts prompt segments; a batch row has one or more.

    A segment is what stands between two answers. Each is mixed by itself, so that a later turn changes no earlier one.
    """

    image_index: Tensor  # (R, I) positions of image tokens in the sequence; 0 where padded
    image_mask: Tensor  # (R, I) bool
    language_index: Tensor  # (R, P) positions of prompt text
    language_mask: Tensor  # (R, P) bool
    aux: Tensor  # (R, C, D)
    aux_mask: Tensor  # (R, C) bool
    positions: Tensor  # (R, I + P) of image tokens, then prompt text, in the flattened batch (B * S)
    batch_rows: Tensor | None = None  # (R,) the batch row of each segment; None where each row has one segment
    choices: list[tuple[int, int]] | None = None  # step 1's draw, one pair per mixer
    question: Tensor | None = None  # (R, D), see Streams
    sources: Tensor | None = None  # (R, C, D), see Streams
    word_matches: Tensor | None = None  # (R, C, 2), see Streams.matches
    targets: Tensor | None = None  # (R, G, C + 1) bool: what the last prompt token should attend to
    answers: AnswerInputs | None = None  # of mixers whose answer tokens read auxiliary tokens


@dataclass
class ForwardContext:
    """One running forward pass of one model.

    Attributes:
        graft: the mixers that it runs; hooks of others ignore it.
        inputs: what they mix; ``None`` mixes nothing.
        calls: how many mixers ran.
        losses: of attention supervision, one per mixer.
        trace: a ``moai.model.analysis.attribution.Trace`` that records what the mixers attend to.
        states: where given, the hidden states that come to each mixer are appended, and nothing is mixed; with those of
            the last mixer, :class:`Reached` is raised.
        stop_at: number of a decoder layer at which :class:`Reached` is raised with the states that enter it.
    """

    graft: Any
    inputs: MixerInputs | None = None
    calls: int = 0
    losses: list[Tensor] = field(default_factory=list)
    trace: Any = None
    states: list[Tensor] | None = None
    stop_at: int | None = None

    @contextmanager
    def running(self) -> Iterator[ForwardContext]:
        """Make this the context of the calling thread for the block."""
        token = _RUNNING.set(self)
        try:
            yield self
        finally:
            _RUNNING.reset(token)


class Reached(Exception):
    """The forward pass has come as far as it has to."""

    def __init__(self, states: Tensor) -> None:
        super().__init__("the layer was reached")
        self.states = states


def current(graft: Any) -> ForwardContext | None:
    """The context of the forward pass that runs in this thread, if it is one of ``graft``."""
    context = _RUNNING.get()
    return context if context is not None and context.graft is graft else None


def checkpoint_contexts() -> tuple[AbstractContextManager, AbstractContextManager]:
    """Contexts of a checkpointed layer, for ``context_fn`` of ``torch.utils.checkpoint``: forward and recomputation."""
    context = _RUNNING.get()
    return _context(context), _context(context)


@contextmanager
def _context(context: ForwardContext | None) -> Iterator[None]:
    token = _RUNNING.set(context)
    try:
        yield
    finally:
        _RUNNING.reset(token)


def segments(
    prompt_mask: Tensor, attended: Tensor | None, document_ids: Tensor | None = None
) -> tuple[Tensor | None, Tensor]:
    """Split each row's prompt tokens where answers stand between them, or where another document begins.

    Args:
        prompt_mask: ``(B, S)`` bool.
        attended: ``(B, S)`` bool, false at padding, which splits nothing; ``None`` without padding.
        document_ids: ``(B, S)`` of packed rows.

    Returns:
        the batch row of each segment ``(R,)``, or ``None`` where every row has one; and the mask of each, ``(R, S)``.
    """
    between = ~prompt_mask if attended is None else attended & ~prompt_mask
    if not bool(between.any()) and document_ids is None:
        return None, prompt_mask
    answers = between.long().cumsum(dim=1)
    if document_ids is not None:  # a document begins after whatever is counted before it, so that numbers only rise
        answers = answers + document_ids * (prompt_mask.shape[1] + 1)
    latest = torch.where(prompt_mask, answers, -1).cummax(dim=1).values
    starts = prompt_mask & (answers > F.pad(latest[:, :-1], (1, 0), value=-1))
    counts = starts.sum(dim=1)
    most = int(counts.max())
    if most <= 1:
        return None, prompt_mask
    numbers = torch.arange(1, most + 1, device=prompt_mask.device)
    number = starts.long().cumsum(dim=1)
    masks = prompt_mask[:, None] & (number[:, None] == numbers[:, None])  # (B, most, S)
    there = numbers <= counts[:, None].clamp(min=1)  # a row without a prompt keeps one empty segment
    rows = torch.arange(len(prompt_mask), device=prompt_mask.device)[:, None].expand(-1, most)
    return rows[there], masks[there]


def locate(mask: Tensor) -> tuple[Tensor, Tensor]:
    """Turn a bool mask ``(B, S)`` into padded positions ``(B, n)`` and their mask, ``n`` the largest row count."""
    counts = mask.sum(dim=1)
    width = int(counts.max()) if counts.numel() else 0
    index = mask.long().argsort(dim=1, descending=True, stable=True)[:, :width]
    valid = torch.arange(width, device=mask.device) < counts[:, None]
    return index.masked_fill(~valid, 0), valid
