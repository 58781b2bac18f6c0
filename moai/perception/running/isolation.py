"""Isolate one expert: a failure in it becomes a reason in a sentence, and its inputs are copies.

Knows: the ways an expert can fail (not installed, does not load, raises, takes too long, breaks the contract), and
which of them are permanent: those before it is loaded. The expert is loaded at the first call, in its own thread.
"""

from __future__ import annotations

import copy
import logging
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from PIL.Image import Image

from moai.errors import ExpertError
from moai.expert import Expert
from moai.perception.cache.packing import plain_bytes
from moai.perception.running.memory import allocated_bytes
from moai.perception.running.shared_picture import share
from moai.perception.running.time_limit import batch_limit
from moai.perception.running.watch import STOPPED, Watch
from moai.perception.running.worker import Stopped, TimedOut, Worker
from moai.types import Perception, check_perception

log = logging.getLogger("moai")
LOAD_LIMIT = 600.0  # seconds for Expert.load, which may have to read large weights
LATE_IN_A_ROW = 2  # images of a batch, each alone, that may take too long before the rest of the batch is not tried
_LONGEST = 400  # characters of a reason
_ASKED_EVERY = 0.1  # seconds
StopCheck = Callable[[], bool] | None  # whether a call was stopped; None: it cannot be
Outcome = Perception | str  # an expert's perception, or the reason why there is none


class Isolated:
    """Run an expert in a worker thread.

    Calls from several threads wait for each other, unless the expert is ``thread_safe``: then each gets a worker of its
    own. The expert gets images and context of its own, so that it cannot change those of the caller or another expert;
    the pixels of an image are copied when the expert writes to it.

    A call that takes too long is abandoned. Python cannot end its thread, which may still be in the engine: the next
    call loads a copy of the expert, in a new thread.

    Args:
        expert: which is not loaded yet.
        device: that it is loaded on.
        time_limit: seconds for one image; a batch has as many times that as it has images. None: no limit.
    """

    def __init__(self, expert: Expert, device: str, time_limit: float | None) -> None:
        self.expert, self.device, self.time_limit = expert, device, time_limit
        self._unloaded = copy.copy(expert)
        self._said_late = False
        self.broken: str | None = None  # the reason why it is not called again
        self.loaded = False
        self.measured: int | None = None  # bytes that loading allocated, where that can be measured
        self._weights: str | None = None  # kept while it is loaded: a changed file does not change the engine
        self._free = threading.Condition(threading.RLock())
        self._busy = 0  # calls in progress
        self._idle = [Worker(f"moai-{expert.name}")]
        weakref.finalize(self, _stop_all, self._idle)

    def perceive(self, images: list[Image], context: list[Perception], watch: Watch | None = None) -> list[Outcome]:
        """Run the expert on a batch and return one outcome per image; raises nothing. ``watch`` may stop it."""
        stopped = None if watch is None else partial(watch.stopped, self.expert.name)
        try:
            with self._lease(stopped) as worker:
                outcomes = self._attempt(worker, images, context, stopped)
                if not isinstance(outcomes, _Raised):
                    return outcomes
                if len(images) == 1:
                    return [outcomes.reason]
                return self._one_by_one(worker, images, context, outcomes, stopped)
        except Stopped:
            return [STOPPED] * len(images)

    def load(self) -> str | None:
        """Load the expert, where it is not loaded yet; return the reason where it is not called again."""
        with self._lease() as worker:
            self._load(worker)
        return self.broken

    def weights_id(self) -> str | None:
        """Identify the expert's weights; None when that fails, and then its perceptions may not be cached."""
        if type(self.expert).weights_id is Expert.weights_id:
            return ""
        if self._weights is None:
            with self._lease() as worker:
                expert = self.expert
                answer = self._try(worker, expert, expert.weights_id, limit=self.time_limit)
            if not isinstance(answer, str):
                reason = answer.reason if isinstance(answer, _Raised) else f"returned {type(answer).__name__}, not str"
                log.warning("expert '%s': weights_id: %s; its perceptions are not cached", self.expert.name, reason)
                return None
            self._weights = answer
        return self._weights

    def close(self) -> None:
        """Unload the expert and end its threads; the next ``perceive`` loads it again."""
        with self._free:
            self._free.wait_for(lambda: self._busy == 0)
            if self.loaded and self.broken is None:
                self._try(self._idle[0], self.expert, self.expert.unload, limit=self.time_limit)
            self.loaded, self._weights = False, None
            _stop_all(self._idle)
            del self._idle[1:]

    @contextmanager
    def _lease(self, stopped: StopCheck = None) -> Iterator[Worker]:
        """Lend a worker: the only one when it is free; for a thread-safe expert any, a new one when all are busy."""
        with self._entered(stopped):
            while self._busy and not self.expert.thread_safe:
                self._free.wait(_ASKED_EVERY if stopped is not None else None)
                if stopped is not None and stopped():
                    raise Stopped
            self._busy += 1
            worker = self._idle.pop() if self._idle else Worker(f"moai-{self.expert.name}")
        try:
            yield worker
        finally:
            with self._free:
                self._busy -= 1
                self._idle.append(worker)
                self._free.notify_all()

    @contextmanager
    def _entered(self, stopped: StopCheck) -> Iterator[None]:
        """Hold the lock, which another call has while it loads the expert."""
        while not self._free.acquire(timeout=-1 if stopped is None else _ASKED_EVERY):
            if stopped is not None and stopped():
                raise Stopped
        try:
            yield
        finally:
            self._free.release()

    def _load(self, worker: Worker, stopped: StopCheck = None) -> Expert:
        """Load the expert where that is needed and return it: another thread may abandon it meanwhile."""
        with self._free:
            if not self.loaded and self.broken is None:
                self._load_now(worker, stopped)
            return self.expert

    def _load_now(self, worker: Worker, stopped: StopCheck) -> None:
        expert = self.expert
        missing = self._try(worker, expert, expert.missing, limit=self.time_limit)
        if isinstance(missing, _Raised):
            self._give_up(f"not installed, or its installation is broken: {missing.reason}{self._install()}")
        elif missing:
            self._give_up(f"not installed: needs {', '.join(missing)}{self._install()}")
        if self.broken is None:
            before = allocated_bytes(self.device)
            answer = self._try(worker, expert, expert.load, self.device, limit=LOAD_LIMIT, stopped=stopped)
            if isinstance(answer, _Raised):
                self._give_up(f"did not load: {answer.reason}")
            after = allocated_bytes(self.device)
            self.measured = max(0, after - before) if before is not None and after is not None else None
        self.loaded = self.broken is None

    def _install(self) -> str:
        return f"; install with: {self.expert.install}" if self.expert.install else ""

    def _attempt(
        self, worker: Worker, images: list[Image], context: list[Perception], stopped: StopCheck
    ) -> list[Outcome] | _Raised:
        """Call the expert once; an outcome per image, or why the call failed."""
        expert = self._load(worker, stopped)
        if self.broken is not None:
            return [self.broken] * len(images)
        limit = batch_limit(self.time_limit, len(images))
        answer = self._try(worker, expert, _call, expert, images, context, limit=limit, stopped=stopped)
        if not isinstance(answer, _Raised):
            return [_accept(result) for result in answer]
        return _Raised(f"{answer.reason}; raise the time limit", late=True) if answer.late else answer

    def _one_by_one(
        self, worker: Worker, images: list[Image], context: list[Perception], failed: _Raised, stopped: StopCheck
    ) -> list[Outcome]:
        """Try the images of a failed batch alone: one bad image must cost only itself.

        An expert that takes too long for several of them in a row does so for any; to try the others would take hours.
        """
        if failed.late and not self._said_late:
            self._said_late = True
            log.warning("expert '%s' takes too long for %d images; each is tried alone", self.expert.name, len(images))
        outcomes: list[Outcome] = []
        late = 0
        for image, own in zip(images, context, strict=True):
            if late == LATE_IN_A_ROW:
                outcomes.append(f"not tried after {late} images in a row without a result within {self.time_limit:g} "
                                "seconds each; raise the time limit")  # fmt: skip
                continue
            found = self._attempt(worker, [image], [own], stopped)
            late = late + 1 if isinstance(found, _Raised) and found.late else 0
            outcomes += [found.reason] if isinstance(found, _Raised) else found
        return outcomes

    def _try(
        self,
        worker: Worker,
        expert: Expert,
        function: Callable,
        *args: Any,
        limit: float | None,
        stopped: StopCheck = None,
    ) -> Any:
        """Call a function of the expert; when that takes too long, go on with an unloaded copy of the expert.

        Raises:
            Stopped: the call is not needed any more; with a copy, too.
        """
        try:
            return worker.call(function, *args, limit=limit, stopped=stopped)
        except TimedOut as error:
            self._abandon(expert)
            return _Raised(f"gave no result within {error.limit:g} seconds", late=True)
        except Stopped:
            self._abandon(expert)
            raise
        except (Exception, SystemExit) as error:  # a plugin may raise anything
            return _Raised(_summary(error))

    def _abandon(self, expert: Expert) -> None:
        with self._free:
            if self.expert is expert:  # else another thread has replaced it
                self.expert, self.loaded, self._weights = copy.copy(self._unloaded), False, None

    def _give_up(self, reason: str) -> None:
        if self.broken is None:
            self.broken = reason
            log.warning("expert '%s': %s", self.expert.name, reason)


def _stop_all(workers: list[Worker]) -> None:
    for worker in workers:
        worker.stop()


class _Raised:
    """Hold the reason why a call failed, and whether that is that it took too long."""

    def __init__(self, reason: str, late: bool = False) -> None:
        self.reason, self.late = reason, late


def _call(expert: Expert, images: list[Image], context: list[Perception]) -> list[Any]:
    """Call the expert on images and context of its own, in the worker, where a generator is exhausted too: in time."""
    answer = expert.perceive([share(image) for image in images], [_copy(perception) for perception in context])
    if answer is None or isinstance(answer, Perception):
        raise ExpertError(f"perceive must return a list with one Perception per image, not {type(answer).__name__}")
    results = list(answer)
    if len(results) != len(images):
        raise ExpertError(f"perceive returned {len(results)} results for {len(images)} images; one per image is needed")
    return results


def _copy(perception: Perception) -> Perception:
    masks = [segment.mask for segment in perception.segments]
    return copy.deepcopy(perception, {id(mask): mask for mask in masks})  # masks are large and cannot be changed


def _accept(result: Any) -> Outcome:
    """Return the result when it keeps the contract, else the reason."""
    try:
        check_perception(result)
        plain_bytes(result)  # numpy scalars and the like would break the cache and JSON later, far from their cause
    except ExpertError as error:
        return f"broke the contract: {error}"[:_LONGEST]
    except Exception as error:  # a field that is not even of the right kind trips the checks themselves
        return f"broke the contract: {_summary(error)}"[:_LONGEST]
    return result


def _summary(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:_LONGEST]
