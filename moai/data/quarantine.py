"""Leave bad rows out where a recipe tolerates a share of them, and write each down when it is reached.

Knows: samples. The next good row takes the place of a bad one. Nothing is left out without a line in the file, and
above the share the run stops.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

from filelock import FileLock

from moai.data.samples import Samples
from moai.errors import DataError
from moai.types import Sample

FILE = "quarantine.jsonl"
LOCK = "quarantine.lock"  # of the file, while a run lasts


class Quarantine:
    """Hold the bad rows of a run: each once, appended to a file as they are found.

    Args:
        tolerate: largest share of bad rows.

    Attributes:
        rows: number of rows of which that share is, bad ones included.
        reasons: a bad row's place -> why it is bad.
    """

    def __init__(self, tolerate: float) -> None:
        self.tolerate, self.rows = tolerate, 0
        self.reasons: dict[str, str] = {}
        self.path: Path | None = None
        self._read = 0  # bytes of the file that are read
        self._writes_all = True

    def open(self, folder: Path, *, fresh: bool, writes_all: bool = True) -> None:
        """Begin to write into a run's ``quarantine.jsonl``, what was found before included.

        Args:
            folder: of the run.
            fresh: forget what the file holds; else its rows are known to be bad.
            writes_all: also write rows that every process of the run finds; one of the processes does.

        Raises:
            DataError: the file cannot be written.
        """
        self.path, self._writes_all, found = folder / FILE, writes_all, list(self.reasons.items())
        self.reasons = {}
        if fresh and writes_all:
            self.path.unlink(missing_ok=True)
        for place, reason in found:
            self.leave_out(place, reason)

    def leave_out(self, place: str, reason: str, *, by_all: bool = True) -> None:
        """Leave a row out.

        Args:
            place: file and line.
            reason: why it is bad.
            by_all: whether every process of the run finds it.

        Raises:
            DataError: more rows are bad than the recipe tolerates, or the file cannot be written.
        """
        if place in self.reasons:
            return
        with self._alone():
            self.read_file()
            if place not in self.reasons:
                self.reasons[place] = reason
                if self.path is not None and (self._writes_all or not by_all):
                    self._append(place, reason)
        if len(self.reasons) > self.tolerate * self.rows:
            first = next(iter(self.reasons.values()))
            raise DataError(
                f"{len(self.reasons):,} of {self.rows:,} rows are bad so far, more than data.tolerate allows "
                f"({self.tolerate:g}); the first: {first}"
            )

    def read_file(self) -> None:
        """Take over what another process, or the run before it was interrupted, wrote since the last look."""
        if self.path is None or not self.path.is_file():
            return
        with open(self.path, "rb") as file:
            file.seek(self._read)
            for line in file:
                if not line.endswith(b"\n"):  # being written, or cut off when the run was killed
                    break
                self._read += len(line)
                if (row := _parsed(line)) is not None:
                    self.reasons.setdefault(*row)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Keep other processes from the file: else two that find a row at once would both write it."""
        if self.path is None:
            yield
            return
        lock = FileLock(self.path.with_name(LOCK))
        try:
            lock.acquire()
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}; make room") from error
        try:
            yield
        finally:
            lock.release()

    def _append(self, place: str, reason: str) -> None:
        file, _, number = place.rpartition(":")
        where = {"file": file, "line": int(number)} if file and number.isdigit() else {"file": place, "line": None}
        line = json.dumps({**where, "reason": reason.removeprefix(f"{place}: ")}) + "\n"
        try:
            with open(self.path, "ab") as out:
                cut = out.tell() > self._read  # a line without its end
                out.write((b"\n" if cut else b"") + line.encode())
        except OSError as error:
            raise DataError(f"{self.path} cannot be written: {error.strerror or error}; make room") from error


def _parsed(line: bytes) -> tuple[str, str] | None:
    """Return place and reason of a line; None of one that was cut off and is no JSON, whose row will be found again."""
    try:
        row = json.loads(line)
        place = row["file"] if row["line"] is None else f"{row['file']}:{row['line']}"
        return place, f"{place}: {row['reason']}"
    except (ValueError, KeyError, TypeError):
        return None


class Tolerated(Samples):
    """View samples of which a bad one is replaced by the next good one: a function of the rows alone.

    Args:
        samples: of one split.
        quarantine: counts the bad rows and writes them down.
        examine: raises :class:`DataError` for a sample that can be read and is bad all the same.
    """

    def __init__(
        self, samples: Samples, quarantine: Quarantine, examine: Callable[[Sample], Any] | None = None
    ) -> None:
        self.samples, self.quarantine, self.examine, self.digest = samples, quarantine, examine, samples.digest

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, index: Any) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(index)
        for row in chain(range(index, len(self)), range(index)):
            if (sample := self.good(row)) is not None:
                return sample
        raise DataError(f"none of {len(self):,} rows is good; see what moai data check says of them")

    def good(self, row: int) -> Sample | None:
        """Return a sample that is good, or None after it was written down.

        Raises:
            DataError: more rows are bad than the recipe tolerates.
        """
        read = False
        try:
            sample, read = self.samples[row], True
            if self.examine is not None:
                self.examine(sample)
            return sample
        except DataError as error:
            place = self.place(row)
            said = str(error) if str(error).startswith(f"{place}: ") else f"{place}: {error}"
            self.quarantine.leave_out(place, said, by_all=not read)
            return None

    def all_good(self) -> Iterator[Sample]:
        """Yield the good samples, each once."""
        return (sample for row in range(len(self)) if (sample := self.good(row)) is not None)

    def epoch_rows(self, epoch: int) -> Any:
        """Return the rows of an epoch of the samples."""
        return self.samples.epoch_rows(epoch)

    def place(self, index: int) -> str:
        """Return where a sample's row stands."""
        return self.samples.place(index)
