"""What plans need of samples: how many, and, where a stage asks for them, lengths, kinds, questions and answers.

Knows: samples. Samples of files that are indexed are read when they are asked for, where there are many of them; all
others are read once before the first step.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Protocol

import numpy as np

from moai.data.row_index import cached_array
from moai.data.samples import Samples
from moai.types import Conversation, Sample

AHEAD = 20_000  # samples up to which all are read before the first step, files that are indexed included
LAYOUT = 1  # raised when cached kinds and pairs of before no longer fit


class Facts(Protocol):
    """What the draws of a stage may ask about samples; a row is a sample's index."""

    lazy: bool
    """Whether lengths are read when they are asked for, so that nothing may ask for all of them at once."""

    def __len__(self) -> int: ...

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Rows of an epoch, ``(N,)`` int64."""

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Tokens of each of these rows, ``(N,)``."""

    def kind_codes(self) -> np.ndarray:
        """:func:`text_code` of the kind of every sample, ``(N,)`` int64."""

    def pair_codes(self) -> np.ndarray:
        """:func:`text_code` of question and answer of every sample, ``(N, 2)`` int64."""


def text_code(text: str) -> int:
    """Return 64 bits of a text's hash: equal for equal texts, in every process."""
    return int.from_bytes(hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).digest(), signed=True)


class SampleFacts:
    """The facts of a run's samples.

    Args:
        samples: of the training split, fitted into the context.
        lengths: counts the tokens of conversations.
        note: is told when all rows are read because a stage asks for what they hold.
        about: how files become samples, as the recipe says: with their digest it names what is cached.

    Attributes:
        lazy: whether samples are read when they are asked for.
    """

    def __init__(
        self,
        samples: Samples,
        lengths: Callable[[Sequence[Conversation]], Sequence[int]],
        note: Callable[[str], None] = lambda text: None,
        about: str = "",
    ) -> None:
        self.samples, self._count, self._note, self._about = samples, lengths, note, about
        self.lazy = bool(samples.digest) and len(samples) > AHEAD

    def __len__(self) -> int:
        return len(self.samples)

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Return the rows of an epoch, ``(N,)`` int64."""
        return self.samples.epoch_rows(epoch)

    @property
    def digest(self) -> str:
        """SHA-256 of the files, or, of samples without files, of ids, image ids and texts."""
        return self.samples.digest or self._read.digest

    @property
    def perceived(self) -> bool:
        """Whether a sample without images brings its own perception; of samples read when asked for, false."""
        return not self.lazy and self._read.perceived

    def lengths(self, rows: np.ndarray) -> np.ndarray:
        """Return the number of tokens of each of these rows, ``(N,)``."""
        if not self.lazy:
            return self._read.lengths[rows]
        return np.array([self._count([self.samples[row].conversation])[0] for row in rows.tolist()], np.int64)

    def kind_codes(self) -> np.ndarray:
        """Return the code of every sample's kind, ``(N,)`` int64."""
        return self._codes[:, 0]

    def pair_codes(self) -> np.ndarray:
        """Return the codes of every sample's question and answer, ``(N, 2)`` int64."""
        return self._codes[:, 1:]

    def kind_names(self) -> set[str]:
        """Return the kinds of the samples."""
        _, firsts = np.unique(self.kind_codes(), return_index=True)
        return {self.samples[row].kind for row in firsts.tolist()}

    def read_ahead(self) -> None:
        """Read every sample now, where they are not read when they are asked for; a bad one is an error."""
        if not self.lazy:
            _ = self._read

    @cached_property
    def _read(self) -> _Table:
        return _Table(self.samples, self._count)

    @cached_property
    def _codes(self) -> np.ndarray:
        if not self.lazy:
            return self._read.codes
        key = hashlib.sha256(f"facts {LAYOUT} {self.samples.digest} {self._about}".encode()).hexdigest()
        return cached_array(key, "kinds and questions", self._read_codes)

    def _read_codes(self) -> np.ndarray:
        self._note(f"reading all {len(self):,} rows once: a stage asks for kinds of questions or for balanced answers")
        codes = np.empty((len(self), 3), np.int64)
        for row, sample in enumerate(self.samples):
            codes[row] = _codes_of(sample)
        return codes


class _Table:
    """Facts of samples that are all read, one after another."""

    def __init__(self, samples: Samples, count: Callable[[Sequence[Conversation]], Sequence[int]]) -> None:
        hashed = hashlib.sha256()
        self.lengths = np.empty(len(samples), np.int64)
        self.codes = np.empty((len(samples), 3), np.int64)
        self.perceived = False
        for row, sample in enumerate(samples):
            self.perceived = self.perceived or bool(sample.perceived)
            [self.lengths[row]] = count([sample.conversation])
            self.codes[row] = _codes_of(sample)
            for line in _described(sample):
                hashed.update(line)
        self.digest = hashed.hexdigest()


def _codes_of(sample: Sample) -> tuple[int, int, int]:
    return text_code(sample.kind), text_code(sample.question), text_code(sample.answer)


def _described(sample: Sample) -> Iterator[bytes]:
    turns = [(turn.role, [str(part) for part in turn.content]) for turn in sample.conversation.turns]
    yield json.dumps([sample.id, sample.image_ids, sample.kind, sample.conversation.loss, turns]).encode()
    yield b"\n"
