"""Samples of a source, each made of its row when it is asked for, and views of such sequences.

Knows: records and samples. A bad row is an error that names its place, whatever the row or the format does.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from moai.data.records import Records, each, find_part, joined_digest
from moai.data.row_index import Place
from moai.errors import DataError, MoaiError
from moai.types import Conversation, Sample

ToSample = Callable[[Any, Place], Sample]


def raised(error: Exception) -> str:
    """Say an exception of a plugin's code in one line."""
    return " ".join(f"{type(error).__name__}: {error}".split())[:200]


class Samples(Sequence[Sample]):
    """Hold samples that are made on access, and say where each stands.

    Attributes:
        key: names this state of the files; empty where nothing that is made of them can be cached.
        digest: SHA-256 of the files' contents and of what is drawn from them; empty where it takes reading all samples.
    """

    key: str = ""
    digest: str = ""

    def groups(self) -> Iterator[str]:
        """Yield for each sample the name of what must stay in one split with it: its first image, or itself.

        A sample that cannot be read has the empty name.
        """
        for sample in each(self):
            yield "" if isinstance(sample, DataError) else (*sample.image_ids, sample.id)[0]

    def place(self, index: int) -> str:
        """Return where a sample's row stands, for messages."""
        raise NotImplementedError

    def epoch_rows(self, epoch: int) -> np.ndarray:
        """Return the samples of an epoch, as indices ``(N,)`` int64: all of them once, unless they are a mixture."""
        return np.arange(len(self))


def group_of(record: Any) -> object:
    """Name what must stay in one split with a row: its image or images, else its id, else the row itself."""
    return next((record[key] for key in ("image", "images", "id") if record.get(key)), record)


class LazySamples(Samples):
    """Make one sample of each record.

    Args:
        records: the raw rows.
        to_sample: makes a sample of a row and its place; what it raises becomes a :class:`DataError` with the place.
        group: names what must stay in one split with a row; it reads the row alone, which is faster than a sample.
    """

    def __init__(self, records: Records, to_sample: ToSample, group: Callable[[Any], object] = group_of) -> None:
        self.records, self.to_sample, self.group = records, to_sample, group
        self.key, self.digest = records.key, records.digest

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: Any) -> Sample:
        record = self.records[index]  # its errors have the place already
        place = self.records.place(index)
        try:
            return self.to_sample(record, place)
        except DataError as error:
            raise DataError(f"{place}: {error}", error.problem) from error
        except MoaiError as error:
            raise DataError(f"{place}: {error}") from error
        except Exception as error:  # a row may hold anything, and a format of a plugin may do anything with it
            raise DataError(
                f"{place}: the row does not fit its format ({raised(error)}); fix it or leave it out"
            ) from error

    def groups(self) -> Iterator[str]:
        """Yield for each row the name of what must stay in one split with it."""
        for record in self.records.stream():
            name = "" if isinstance(record, DataError) else self.group(record)
            yield name if isinstance(name, str) else json.dumps(name, sort_keys=True, default=str)

    def place(self, index: int) -> str:
        """Return file and line of a row."""
        return str(self.records.place(index))


class Listed(Samples):
    """Wrap the samples of a registered data set, which have no file; the id names each.

    Args:
        samples: made on access, or before; what one raises becomes a :class:`DataError` with its number.
        name: of the data set, for messages.
    """

    def __init__(self, samples: Sequence[Sample], name: str = "samples") -> None:
        self.samples, self.name = samples, name

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        try:
            sample = self.samples[index]
        except MoaiError:
            raise
        except Exception as error:  # a data set of a plugin may do anything
            raise DataError(f"{self.name}: {raised(error)} at sample {index}; report it to its author") from error
        if not isinstance(sample, Sample):
            raise DataError(f"{self.name}: sample {index} is {sample!r:.80}, no moai.Sample; report it to its author")
        return sample

    def place(self, index: int) -> str:
        """Return the sample's id, or its number where it cannot be made."""
        try:
            return f"sample '{self[index].id}'"
        except MoaiError:
            return f"{self.name}: sample {index}"


class Described(Samples):
    """Give the samples of a source an answer type, and their first question a line that says how to answer.

    Args:
        samples: of the source.
        kind: of all; None leaves each its own.
        response_format: the line; documents, which ask nothing, get none.
    """

    def __init__(self, samples: Samples, kind: str | None = None, response_format: str | None = None) -> None:
        self.samples, self.kind, self.response_format = samples, kind, response_format
        self.key = samples.key
        given = json.dumps([kind, response_format]).encode()
        self.digest = joined_digest([samples.digest], given) if samples.digest else ""

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Sample:
        sample = self.samples[index]
        if self.response_format is not None:
            sample = replace(sample, conversation=self._asked(sample.conversation))
        return sample if self.kind is None else replace(sample, kind=self.kind)

    def _asked(self, conversation: Conversation) -> Conversation:
        turns = list(conversation.turns)
        at = next((number for number, turn in enumerate(turns) if turn.role == "user"), None)
        if at is None:
            return conversation
        turns[at] = replace(turns[at], content=(*turns[at].content, f"\n{self.response_format}"))
        return replace(conversation, turns=tuple(turns))

    def groups(self) -> Iterator[str]:
        """Yield the samples' own groups."""
        return self.samples.groups()

    def place(self, index: int) -> str:
        """Return where a sample's row stands."""
        return self.samples.place(index)


class Selected(Samples):
    """View some samples of a sequence, in the order given and as often as given."""

    def __init__(self, samples: Samples, indices: Sequence[int]) -> None:
        self.samples, self.indices = samples, indices
        self.digest = joined_digest([samples.digest], np.asarray(indices, np.int64).tobytes()) if samples.digest else ""

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: Any) -> Sample:
        return self.samples[int(self.indices[index])]

    def place(self, index: int) -> str:
        """Return where a sample's row stands."""
        return self.samples.place(int(self.indices[index]))


class Concatenated(Samples):
    """Join the samples of several sources, in order."""

    def __init__(self, parts: Sequence[Samples]) -> None:
        self.parts = parts
        self.ends = [sum(len(part) for part in parts[: n + 1]) for n in range(len(parts))]
        self.digest = joined_digest([part.digest for part in parts])

    def __len__(self) -> int:
        return self.ends[-1] if self.ends else 0

    def __getitem__(self, index: Any) -> Sample:
        number, within = find_part(self.ends, index)
        return self.parts[number][within]

    def place(self, index: int) -> str:
        """Return where a sample's row stands."""
        number, within = find_part(self.ends, index)
        return self.parts[number].place(within)


def concatenated(parts: Sequence[Samples]) -> Samples:
    """Return the samples of all parts as one sequence."""
    return parts[0] if len(parts) == 1 else Concatenated(parts)


def draw(samples: Samples, limit: int | None, seed: int = 0) -> Samples:
    """Draw at most ``limit`` samples at random, in their own order; a larger limit contains a smaller one."""
    if limit is None or limit >= len(samples):
        return samples
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    return Selected(samples, sorted(order[:limit]))
