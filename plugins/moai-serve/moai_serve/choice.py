"""One answer while it is generated: its tokens, its text so far, its log probabilities, and why it ended.

Knows: a tokenizer; nothing of batches or of HTTP.
"""

from __future__ import annotations

import math
import random
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from moai_serve.asking import Sampling

STOP, LENGTH, LATE, LEFT = "stop", "length", "late", "left"
BROKEN = "\ufffd"  # what the first tokens of a character of several are decoded to


@dataclass(frozen=True)
class TokenScore:
    """Hold the log probability of a token at its place: ``top`` has the likeliest ones, best first."""

    token: str
    logprob: float
    top: tuple[tuple[str, float], ...] = ()


@dataclass
class Choice:
    """Draw one answer token by token.

    Attributes:
        number: among the choices of its request.
        sampling: how it is drawn. Draws come from the seed and the number alone, so that they do not depend on the
            batch.
        deadline: of ``time.monotonic``; an answer that is not finished then ends.
        ended: why it ended: ``STOP``, ``LENGTH``, ``LATE``, or ``LEFT``, when nobody waits for it any longer.
    """

    number: int
    sampling: Sampling
    tokenizer: Any
    stops: tuple[int, ...]
    deadline: float = math.inf
    follow: bool = False  # keep `text` up to date at every token, for a stream
    tokens: list[int] = field(default_factory=list)
    scores: list[TokenScore] = field(default_factory=list)
    ended: str | None = None
    text: str = ""  # what is certain of the answer so far

    def __post_init__(self) -> None:
        self._random = random.Random(f"{self.sampling.seed}:{self.number}")
        self._whole, self._lengths = "", []

    @property
    def greedy(self) -> bool:
        """True when the likeliest token is taken."""
        return self.sampling.temperature == 0

    def draw(self, logits: Tensor) -> int:
        """Draw a token of ``(V,)`` logits: one number in [0, 1) picks it from the cumulative probabilities."""
        chances = (logits.double() / self.sampling.temperature).softmax(dim=-1)
        if self.sampling.top_p < 1:
            ordered, places = chances.sort(descending=True, stable=True)
            before = ordered.cumsum(0) - ordered
            chances[places[before >= self.sampling.top_p]] = 0.0
        summed = chances.cumsum(0)
        at = torch.searchsorted(summed, summed[-1] * self._random.random(), right=True)
        return min(int(at), int(chances.nonzero()[-1]))

    def add(self, token: int, logits: Tensor) -> None:
        """Take a token of ``(V,)`` logits, and end the answer where that ends it."""
        self.tokens.append(token)
        if token in self.stops:
            self.end(STOP)
            return
        if self.sampling.logprobs:
            self.scores.append(self._score(token, logits))
        if self.follow or self.sampling.stop:
            self._update()
        if self.ended is None and len(self.tokens) >= self.sampling.max_tokens:
            self.end(LENGTH)

    def check(self) -> None:
        """End the answer when its time is over."""
        if self.ended is None and time.monotonic() > self.deadline:
            self.end(LATE)

    def end(self, why: str) -> None:
        """End the answer; its text is then whole."""
        if self.ended is None:
            self.ended = why
            self._finish(self._decode())

    def _decode(self) -> str:
        own = [token for token in self.tokens if token not in self.stops]
        return self.tokenizer.decode(own, skip_special_tokens=True)

    def _update(self) -> None:
        self._whole = self._decode()
        self._lengths.append(len(self._whole))
        cut = self._stopped_at(self._whole)
        if cut is not None:
            self.ended = STOP
            # Of the tokens those count whose text begins before the stop.
            kept = sum(1 for before in [0, *self._lengths[:-1]] if before < cut)
            self.scores = self.scores[:kept]
            self._finish(self._whole[:cut])
            return
        certain = self._whole.rstrip(BROKEN)
        certain = certain[: len(certain) - self._begun(certain)].strip()
        if certain.startswith(self.text):
            self.text = certain

    def _finish(self, whole: str) -> None:
        cut = self._stopped_at(whole)
        self.text = (whole if cut is None else whole[:cut]).strip()

    def _stopped_at(self, text: str) -> int | None:
        found = [at for at in (text.find(stop) for stop in self.sampling.stop) if at >= 0]
        return min(found, default=None)

    def _begun(self, text: str) -> int:
        """How many characters at the end may be the beginning of a stop."""
        return max(
            (size for stop in self.sampling.stop for size in range(1, len(stop)) if text.endswith(stop[:size])),
            default=0,
        )

    def _score(self, token: int, logits: Tensor) -> TokenScore:
        chances = logits.float().log_softmax(dim=-1)
        top: list[tuple[str, float]] = []
        if self.sampling.top_logprobs:
            values, places = chances.topk(min(self.sampling.top_logprobs, len(chances)))
            top = [(self.tokenizer.decode([p]), v) for p, v in zip(places.tolist(), values.tolist(), strict=True)]
        return TokenScore(self.tokenizer.decode([token]), float(chances[token]), tuple(top))
