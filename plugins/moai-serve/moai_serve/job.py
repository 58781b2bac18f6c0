"""One request on its way through the engine, and what the engine reports of it.

Knows: what was asked, and a function that reports go to. Reports are plain data, in the order in which they happen.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from moai import Perception
from moai_serve.asking import Asked
from moai_serve.choice import LATE, LEFT, Choice, TokenScore
from moai_serve.errors import ApiError


@dataclass(frozen=True)
class Perceived:
    """Report what the experts found, and what the prompt costs."""

    perception: Perception
    verbalized: str
    counts: dict[str, int]


@dataclass(frozen=True)
class Grown:
    """Report text that an answer has grown by, with the scores of the tokens since the last report."""

    choice: int
    text: str
    scores: tuple[TokenScore, ...]


@dataclass(frozen=True)
class Finished:
    """Report that an answer has ended."""

    choice: int
    text: str
    scores: tuple[TokenScore, ...]
    reason: str
    tokens: int


Report = Perceived | Grown | Finished | ApiError


def late() -> ApiError:
    """Build the error of an answer that took too long."""
    return ApiError(504, "the answer took longer than this server allows; ask for fewer tokens, or later", "timeout")


@dataclass
class Job:
    """Hold one request that waits or is answered.

    Attributes:
        asked: what it asks.
        report: called from the engine's threads with each :data:`Report`.
        deadline: of ``time.monotonic``.
        left: true when nobody waits for it any longer.
        failed: true when it got an error.
    """

    asked: Asked
    report: Callable[[Report], None]
    deadline: float
    came: float = field(default_factory=time.monotonic)
    left: bool = False
    failed: bool = False
    perceptions: list[Perception] = field(default_factory=list)
    choices: list[Choice] = field(default_factory=list)
    ready: float = 0.0
    told: dict[int, tuple[int, int]] = field(default_factory=dict)  # choice -> characters and scores reported
    done: set[int] = field(default_factory=set)

    def leave(self) -> None:
        """Say that nobody waits for it any longer; its answers end at their next token."""
        self.left = True

    def fail(self, error: ApiError) -> None:
        """Report an error, which ends the request."""
        if not self.failed:
            self.failed = True
            self.report(error)

    @property
    def over(self) -> bool:
        """True when no answer of it is wanted any longer."""
        return self.left or self.failed

    def tell(self) -> None:
        """Report what is new of its answers."""
        for choice in self.choices:
            if self.left and choice.ended is None:
                choice.end(LEFT)
            if choice.number in self.done or self.over:
                continue
            told, scored = self.told.get(choice.number, (0, 0))
            if choice.ended is None and self.asked.stream and len(choice.text) > told:
                self.told[choice.number] = (len(choice.text), len(choice.scores))
                self.report(Grown(choice.number, choice.text[told:], tuple(choice.scores[scored:])))
            elif choice.ended is not None:
                self._finish(choice, told, scored)

    def _finish(self, choice: Choice, told: int, scored: int) -> None:
        if choice.ended == LATE:
            self.fail(late())
            return
        self.done.add(choice.number)
        self.report(
            Finished(choice.number, choice.text[told:], tuple(choice.scores[scored:]), choice.ended or "",
                     len(choice.tokens))
        )  # fmt: skip
