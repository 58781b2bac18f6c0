"""Run experts over images: in order of what they need, in batches, through the cache, each failure on its own.

Knows: experts, the store and the contract of a perception. An expert that raises, hangs, breaks the contract or is
not installed becomes a ``Failure`` in the perceptions concerned; the other experts and the other images go on.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from PIL import Image

from moai.errors import AssetError, ExpertError, ImageError
from moai.expert import Expert
from moai.images import image_key, read_image
from moai.perception.cache.store import Store, entry_key
from moai.perception.running.device_queues import in_lanes
from moai.perception.running.isolation import Isolated, Outcome
from moai.perception.running.memory import parse_size, say_size
from moai.perception.running.schedule import in_order, in_shifts, in_waves
from moai.perception.running.settings import build, per_expert
from moai.plugins import Registry
from moai.types import Failure, Perception, Source, merge

log = logging.getLogger("moai")
Columns = dict[str, list[Perception]]  # expert name -> what it saw in each image so far


class Perceiver:
    """A fixed set of experts, ready to look at images.

    Calls from several threads may overlap; an expert that does not say ``thread_safe`` serves them one after another.
    """

    def __init__(
        self,
        experts: Sequence[str | Expert],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        store: Store | None = None,
        device: str | Mapping[str, str] = "cpu",
        batch_size: int = 16,
        time_limit: float | Mapping[str, float | None] | None = 60.0,
        max_memory: int | str | None = None,
        registry: Registry | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            experts: names, or expert objects made by hand.
            options: per expert name, its options.
            store: where perceptions are cached; None caches nothing.
            device: handed to ``Expert.load``: one for all, or per expert name, with ``"*"`` for the others. Experts on
                different devices that do not require each other look at the same time.
            batch_size: images per call of ``Expert.perceive``.
            time_limit: seconds per batch, for all or per expert name; an expert that takes longer is abandoned. None
                waits for ever.
            max_memory: bytes, or ``"8GB"``, that experts loaded at the same time may take together, by their own
                word (``Expert.memory``) or as measured when they were loaded before. Experts that do not fit run in
                shifts: each shift is loaded, looks at all images, and is unloaded. 0: one expert at a time. None:
                all are loaded when they are first needed, and stay.
            registry: where names are looked up; the process-wide one when None.

        Raises:
            ExpertError: unknown expert or option (with the nearest name), an expert named twice, or experts that
                require each other in a circle.
        """
        if batch_size < 1:
            raise ExpertError(f"batch_size must be at least 1, not {batch_size}")
        self.experts: tuple[Expert, ...] = in_order(build(experts, options or {}, registry))
        self.store = store
        self.batch_size = batch_size
        self.max_memory = None if max_memory is None else parse_size(max_memory)
        names = [expert.name for expert in self.experts]
        devices = per_expert("device", device, names, "cpu", lambda item: isinstance(item, str) and item != "")
        limits = per_expert("time_limit", time_limit, names, 60.0, _is_limit)
        self._isolated = {e.name: Isolated(e, devices[e.name], limits[e.name]) for e in self.experts}
        # Two calls that loaded different shifts at once would hold more than the budget.
        self._budget = threading.Lock() if self.max_memory is not None else contextlib.nullcontext()

    def perceive(
        self, images: Sequence[Image.Image], progress: Callable[[int], None] | None = None
    ) -> list[Perception]:
        """Look at images.

        Args:
            images: RGB pictures; the sequence is read batch by batch, once per shift, so it may load them as it goes.
            progress: called after each batch with the number of images that are done; over the shifts of a
                ``max_memory``, each image counts in parts that add up to one.

        Returns:
            One merged perception per image, in order, with a ``Source`` for every expert that answered and a
            ``Failure`` for every one that did not.

        Raises:
            ImageError: an item is no image.
        """
        if isinstance(images, Image.Image):
            raise ImageError("perceive takes a list of images; pass [image]")
        columns: Columns = {expert.name: [] for expert in self.experts}
        with self._budget:
            shifts = self._shifts()
            done = _Progress(progress, len(shifts))
            keys: list[str] = []
            for shift in shifts:
                self._work(shift, images, keys, columns, done)
                if len(shifts) > 1:
                    self._unload(shift)
        return [merge([column[i] for column in columns.values()]) for i in range(len(images))]

    def only(self, names: Iterable[str]) -> Perceiver:
        """The same with these of its experts alone; it shares their loaded engines, the memory budget and the cache."""
        names, chosen = set(names), copy.copy(self)
        chosen.experts = tuple(expert for expert in self.experts if expert.name in names)
        return chosen

    def close(self) -> None:
        """Unload the experts; the next ``perceive`` loads them again."""
        for isolated in self._isolated.values():
            isolated.close()

    def sizes(self) -> dict[str, int | None]:
        """Bytes that each expert takes: its own word, else as measured when it was loaded, else None."""
        known = {}
        for expert in self.experts:
            stated = expert.memory
            known[expert.name] = self._isolated[expert.name].measured if stated is None else stated
        return known

    def _shifts(self) -> list[list[Expert]]:
        if self.max_memory is None or len(self.experts) < 2:
            return [list(self.experts)]
        sizes = self.sizes()
        for name, size in sizes.items():
            if size is not None and 0 < self.max_memory < size:
                log.warning(
                    "expert '%s' takes %s, more than the %s allowed; it runs alone",
                    *(name, say_size(size), say_size(self.max_memory)),
                )
        return in_shifts(self.experts, sizes, self.max_memory)

    def _work(
        self, shift: list[Expert], images: Sequence[Image.Image], keys: list[str], columns: Columns, done: _Progress
    ) -> None:
        """Let the experts of a shift look at all images; fills ``columns``, and ``keys`` when it is the first."""
        for start in range(0, len(images), self.batch_size):
            stop = min(start + self.batch_size, len(images))
            batch = [_checked(images[index]) for index in range(start, stop)]
            if self.store is not None and len(keys) < stop:
                keys.extend(image_key(image) for image in batch)
            for wave in in_waves(shift):
                seen = {name: column[start:stop] for name, column in columns.items()}
                for expert, found in zip(wave, self._look(wave, batch, keys[start:stop], seen), strict=True):
                    columns[expert.name].extend(found)
            done(len(batch))

    def _look(
        self, wave: list[Expert], images: list[Image.Image], keys: list[str], seen: Columns
    ) -> list[list[Perception]]:
        """What each expert of a wave sees in a batch; the lanes are the devices."""
        jobs = []
        for expert in wave:
            helpers = [seen[other.name] for other in self.experts if other.role in expert.requires]
            context = [replace(merge([column[i] for column in helpers]), failures=()) for i in range(len(images))]
            jobs.append((self._isolated[expert.name].device, partial(self._outcomes, expert, images, context, keys)))
        found = in_lanes(jobs)
        return [[_signed(expert, one) for one in outcomes] for expert, outcomes in zip(wave, found, strict=True)]

    def _outcomes(
        self, expert: Expert, images: list[Image.Image], context: list[Perception], keys: list[str]
    ) -> list[Outcome]:
        """What ``expert`` says about each image: from the cache where it is there, else from the expert itself."""
        isolated = self._isolated[expert.name]
        weights = isolated.weights_id() if self.store is not None else None
        if self.store is None or weights is None:
            return isolated.perceive(images, context)
        entries = [entry_key(key, expert, context[i], weights) for i, key in enumerate(keys)]
        known: dict[str, Outcome] = {}
        for entry in dict.fromkeys(entries):
            cached = self.store.get(entry)
            if cached is not None:
                known[entry] = cached
        new = {entry: i for i, entry in enumerate(entries) if entry not in known}  # an image given twice counts once
        if new:
            at = list(new.values())
            outcomes = isolated.perceive([images[i] for i in at], [context[i] for i in at])
            fresh = dict(zip(new, outcomes, strict=True))
            known.update(fresh)
            self._keep(self.store, expert, fresh)
        return [known[entry] for entry in entries]

    def _keep(self, store: Store, expert: Expert, outcomes: dict[str, Outcome]) -> None:
        good = [(entry, o) for entry, o in outcomes.items() if isinstance(o, Perception) and not o.failures]
        try:
            store.put_many(good, expert=expert.name)
        except AssetError as error:
            # What was perceived is still good for this answer; a full disk must not take it away.
            log.warning("perceptions were not cached: %s", error)

    def _unload(self, shift: list[Expert]) -> None:
        for expert in shift:
            self._isolated[expert.name].close()
        gc.collect()  # engines are full of reference cycles, and the next shift needs the room now


class _Progress:
    """Tells a callback how many images are done, when each of them is looked at in several shifts."""

    def __init__(self, callback: Callable[[int], None] | None, shifts: int) -> None:
        self.callback, self.shifts = callback, shifts
        self.looks = self.told = 0

    def __call__(self, images: int) -> None:
        self.looks += images
        ready = self.looks // self.shifts - self.told
        if self.callback is not None and ready:
            self.told += ready
            self.callback(ready)


def _signed(expert: Expert, outcome: Outcome) -> Perception:
    if isinstance(outcome, str):
        return Perception(failures=(Failure(expert.name, outcome),))
    return replace(outcome, sources=(Source(expert.name, expert.role, expert.version),))


def _is_limit(seconds: Any) -> bool:
    return seconds is None or (isinstance(seconds, (int, float)) and seconds > 0)


def _checked(image: Any) -> Image.Image:
    plain = isinstance(image, Image.Image) and image.mode == "RGB" and image.width > 0 and image.height > 0
    return image if plain else read_image(image)
