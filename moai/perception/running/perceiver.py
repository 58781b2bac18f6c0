"""Run experts on images: in the order of their requirements, in batches, through the cache, each failure on its own.

Knows: experts, the store and the contract of a perception. An expert that raises, hangs, breaks the contract or is
not installed becomes a ``Failure`` in the perceptions concerned; the other experts and the other images go on.
"""

from __future__ import annotations

import contextlib
import copy
import gc
import logging
import os
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from PIL import Image, ImageFile

from moai.errors import AssetError, ExpertError, ImageError, nearest
from moai.expert import Expert
from moai.images import has_metadata, image_key, read_image
from moai.perception.cache.store import Store, entry_key
from moai.perception.running.isolation import Isolated, Outcome
from moai.perception.running.memory import format_size, parse_size
from moai.perception.running.schedule import dependency_levels, in_order, memory_groups, run_device_queues
from moai.perception.running.settings import build, per_expert
from moai.perception.running.time_limit import TIME_LIMIT, TimeLimit, is_limit
from moai.perception.running.watch import STOPPED, Watch
from moai.plugins import Registry
from moai.types import Failure, Perception, Source, merge, sign

log = logging.getLogger("moai")
Columns = dict[str, list[Perception]]  # expert name -> its perception of each image so far


class Perceiver:
    """Run a fixed set of experts on images.

    Calls from several threads may overlap; an expert that is not ``thread_safe`` runs them one after another.
    """

    def __init__(
        self,
        experts: Sequence[str | Expert],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        store: Store | None = None,
        device: str | Mapping[str, str] = "cpu",
        batch_size: int = 16,
        time_limit: TimeLimit = TIME_LIMIT,
        max_memory: int | str | None = None,
        registry: Registry | None = None,
    ) -> None:
        """Build the experts and check the settings; nothing is loaded yet.

        Args:
            experts: names, or expert objects made by hand.
            options: per expert name, its options.
            store: where perceptions are cached; None caches nothing.
            device: given to ``Expert.load``: one for all, or per expert name, with ``"*"`` for the others. Experts on
                different devices that do not require each other run at the same time.
            batch_size: images per call of ``Expert.perceive``.
            time_limit: seconds per image, for all or per expert name; a batch of n images has n times as long. A batch
                that takes longer is abandoned and its images are tried one by one, the expert loaded anew. None waits
                for ever.
            max_memory: bytes, or ``"8GB"``, that experts loaded at the same time may take together, by
                ``Expert.memory`` or as measured when they were loaded before. Experts that do not fit together run in
                memory groups: each group is loaded, run on all images, and unloaded. 0: one expert at a time. None:
                all are loaded when they are first needed, and stay loaded.
            registry: resolves the names; the process-wide one when None.

        Raises:
            ExpertError: unknown expert or option (with the nearest name), an expert named twice, or experts that
                require each other in a circle.
        """
        if not isinstance(batch_size, int) or batch_size < 1:
            raise ExpertError(f"batch_size must be a whole number of at least 1, not {batch_size!r}")
        if store is not None and not isinstance(store, Store):
            raise ExpertError(f"store must be a Store, or None for no cache, not {store!r}; pass Store(folder)")
        self.experts: tuple[Expert, ...] = in_order(build(experts, options or {}, registry))
        self.store = store
        self.batch_size = batch_size
        self.max_memory = None if max_memory is None else parse_size(max_memory)
        names = [expert.name for expert in self.experts]
        devices = per_expert("device", device, names, "cpu", lambda item: isinstance(item, str) and item != "")
        self._isolated = {expert.name: Isolated(expert, devices[expert.name], None) for expert in self.experts}
        self.limit_time(time_limit)
        # Two calls that loaded different memory groups at once would exceed the budget.
        self._budget = threading.Lock() if self.max_memory is not None else contextlib.nullcontext()

    def perceive(
        self,
        images: Sequence[Image.Image],
        progress: Callable[[int], None] | None = None,
        watch: Watch | None = None,
    ) -> list[Perception]:
        """Run the experts on images.

        Args:
            images: RGB pictures, which are not changed: what an expert writes to one goes to a copy. The sequence is
                read batch by batch, once per memory group, so it may load them as it goes.
            progress: called after each batch with the number of images that are done; over several memory groups,
                each image counts in parts that add up to one.
            watch: follows this call expert by expert, and may stop experts of it.

        Returns:
            One merged perception per image, in order, with a ``Source`` for every expert that succeeded and a
            ``Failure`` for every one that did not.

        Raises:
            ImageError: an item is no image, or a single image is given in the place of a list.
        """
        _check_list(images)
        columns: Columns = {expert.name: [] for expert in self.experts}
        with self._budget:
            groups = self._groups()
            done = _Progress(progress, len(groups))
            keys: list[str] = []
            for group in groups:
                self._run_group(group, images, keys, columns, done, watch)
                if len(groups) > 1:
                    self._unload(group)
        return [merge([column[i] for column in columns.values()]) for i in range(len(images))]

    def only(self, names: Iterable[str]) -> Perceiver:
        """Select some of the experts; the result shares their loaded engines, the memory budget and the cache.

        Raises:
            ExpertError: a name that is not among them.
        """
        names, chosen = {names} if isinstance(names, str) else set(names), copy.copy(self)
        known = [expert.name for expert in self.experts]
        for name in sorted(names.difference(known)):
            raise ExpertError(f"expert '{name}' is not among those of this perceiver{nearest(name, known)}")
        chosen.experts = tuple(expert for expert in self.experts if expert.name in names)
        return chosen

    def limit_time(self, time_limit: TimeLimit) -> None:
        """Set the time limit of the calls that begin from now on, as in the construction.

        Raises:
            ExpertError: a name that is not among the experts, or no positive number of seconds.
        """
        names = [expert.name for expert in self.experts]
        for name, limit in per_expert("time_limit", time_limit, names, TIME_LIMIT, is_limit).items():
            self._isolated[name].time_limit = limit

    def load(self) -> None:
        """Load all experts now, instead of at the first image.

        Raises:
            ExpertError: an expert is not installed or does not load. ``perceive`` would report it with every image.
        """
        for expert in self.experts:
            if (reason := self._isolated[expert.name].load()) is not None:
                raise ExpertError(f"expert '{expert.name}': {reason}")

    def given_up(self) -> dict[str, str]:
        """Return the experts that are not called again, not installed or not loaded, with the reason."""
        broken = {expert.name: self._isolated[expert.name].broken for expert in self.experts}
        return {name: reason for name, reason in broken.items() if reason is not None}

    def close(self) -> None:
        """Unload the experts; the next ``perceive`` loads them again."""
        for isolated in self._isolated.values():
            isolated.close()

    def sizes(self) -> dict[str, int | None]:
        """Return the bytes of each expert: ``Expert.memory``, else as measured when it was loaded, else None."""
        known = {}
        for expert in self.experts:
            stated = expert.memory
            known[expert.name] = self._isolated[expert.name].measured if stated is None else stated
        return known

    def _groups(self) -> list[list[Expert]]:
        if self.max_memory is None or len(self.experts) < 2:
            return [list(self.experts)]
        sizes = self.sizes()
        for name, size in sizes.items():
            if size is not None and 0 < self.max_memory < size:
                log.warning(
                    "expert '%s' takes %s, more than the %s allowed; it runs alone",
                    *(name, format_size(size), format_size(self.max_memory)),
                )
        return memory_groups(self.experts, sizes, self.max_memory)

    def _run_group(
        self,
        group: list[Expert],
        images: Sequence[Image.Image],
        keys: list[str],
        columns: Columns,
        done: _Progress,
        watch: Watch | None,
    ) -> None:
        """Run a memory group on all images; fills ``columns``, and ``keys`` for the first group."""
        for start in range(0, len(images), self.batch_size):
            stop = min(start + self.batch_size, len(images))
            batch = [_decoded(images[index]) for index in range(start, stop)]
            if self.store is not None and len(keys) < stop:
                keys.extend(image_key(image) for image in batch)
            for level in dependency_levels(group):
                earlier = {name: column[start:stop] for name, column in columns.items()}
                outcomes = self._run_level(level, batch, keys[start:stop], earlier, watch)
                for expert, found in zip(level, outcomes, strict=True):
                    columns[expert.name].extend(found)
            done(len(batch))

    def _run_level(
        self, level: list[Expert], images: list[Image.Image], keys: list[str], earlier: Columns, watch: Watch | None
    ) -> list[list[Perception]]:
        """Run the experts of a dependency level on a batch, with one queue per device."""
        jobs = []
        for expert in level:
            helpers = [earlier[other.name] for other in self.experts if other.role in expert.requires]
            context = [replace(merge([column[i] for column in helpers]), failures=()) for i in range(len(images))]
            run = partial(self._watched, watch, expert, images, context, keys)
            jobs.append((self._isolated[expert.name].device, run))
        found = run_device_queues(jobs)
        return [[_signed(expert, *one) for one in outcomes] for expert, outcomes in zip(level, found, strict=True)]

    def _watched(
        self, watch: Watch | None, expert: Expert, images: list[Image.Image], context: list[Perception], keys: list[str]
    ) -> list[tuple[Outcome, bool]]:
        """Return what ``_outcomes`` does, and let a watch follow it."""
        if watch is None:
            return self._outcomes(expert, images, context, keys)
        if watch.stopped(expert.name):
            return [(STOPPED, False)] * len(images)
        watch.begin(expert.name)
        try:
            return self._outcomes(expert, images, context, keys, watch)
        finally:
            watch.end(expert.name)

    def _outcomes(
        self,
        expert: Expert,
        images: list[Image.Image],
        context: list[Perception],
        keys: list[str],
        watch: Watch | None = None,
    ) -> list[tuple[Outcome, bool]]:
        """Return the expert's outcome for each image, and whether it came from the cache."""
        isolated = self._isolated[expert.name]
        weights = isolated.weights_id() if self.store is not None and expert.cacheable else None
        if self.store is None or weights is None:
            return [(outcome, False) for outcome in isolated.perceive(images, context, watch)]
        entries = [entry_key(key, expert, context[i], weights, expert.source) for i, key in enumerate(keys)]
        known: dict[str, Outcome] = {}
        for entry in dict.fromkeys(entries):
            cached = self.store.get(entry)
            if cached is not None:
                known[entry] = cached
        new = {entry: i for i, entry in enumerate(entries) if entry not in known}  # an image given twice counts once
        if new:
            at = list(new.values())
            outcomes = isolated.perceive([images[i] for i in at], [context[i] for i in at], watch)
            fresh = dict(zip(new, outcomes, strict=True))
            known.update(fresh)
            self._cache(self.store, expert, fresh)
        return [(known[entry], entry not in new) for entry in entries]

    def _cache(self, store: Store, expert: Expert, outcomes: dict[str, Outcome]) -> None:
        good = [(entry, o) for entry, o in outcomes.items() if isinstance(o, Perception) and not o.failures]
        try:
            store.put_many(good, expert=expert.name)
        except AssetError as error:
            # The perceptions are still good for this call, whatever the state of the disk.
            log.warning("perceptions were not cached: %s", error)

    def _unload(self, group: list[Expert]) -> None:
        for expert in group:
            self._isolated[expert.name].close()
        gc.collect()  # engines are full of reference cycles, and the next group needs their memory now


class _Progress:
    """Report to a callback how many images are done, when each of them passes through several memory groups."""

    def __init__(self, callback: Callable[[int], None] | None, groups: int) -> None:
        self.callback, self.groups = callback, groups
        self.passes = self.reported = 0

    def __call__(self, images: int) -> None:
        self.passes += images
        ready = self.passes // self.groups - self.reported
        if self.callback is not None and ready:
            self.reported += ready
            self.callback(ready)


def _signed(expert: Expert, outcome: Outcome, cached: bool) -> Perception:
    if isinstance(outcome, str):
        return Perception(failures=(Failure(expert.name, outcome),))
    return sign(outcome, Source(expert.name, expert.role, expert.version, cached))


def _check_list(images: Any) -> None:
    """Refuse what is no sequence of images: a single one, in any of the forms that can be read, or a generator."""
    one = isinstance(images, (Image.Image, str, bytes, bytearray, os.PathLike))
    if one or (isinstance(images, np.ndarray) and images.ndim < 4):
        raise ImageError("perceive takes a list of images; pass [image]")
    if isinstance(images, Mapping) or not (hasattr(images, "__len__") and hasattr(images, "__getitem__")):
        fix = "list(images)" if isinstance(images, Iterable) and not isinstance(images, Mapping) else "[image]"
        raise ImageError(f"perceive takes a list of images, not {type(images).__name__}; pass {fix}")


def _decoded(image: Any) -> Image.Image:
    """Return a decoded, upright RGB image.

    One that is opened but not decoded yet cannot be read by two threads at once. A picture with metadata is read as one
    from a file: a copy of an opened photograph still has its orientation.
    """
    plain = isinstance(image, Image.Image) and image.mode == "RGB" and image.width > 0 and image.height > 0
    plain = plain and not has_metadata(image)
    return image if plain and not isinstance(image, ImageFile.ImageFile) else read_image(image)
