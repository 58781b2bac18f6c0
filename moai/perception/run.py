"""Run experts over images: in order of what they need, in batches, through the cache, each failure on its own.

Knows: experts, the store and the contract of a perception. An expert that raises, hangs, breaks the contract or is
not installed becomes a ``Failure`` in the perceptions concerned; the other experts and the other images go on.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from PIL import Image

from moai.errors import AssetError, ExpertError, ImageError, nearest
from moai.expert import Expert
from moai.images import image_key, read_image
from moai.perception.isolation import Isolated, Outcome
from moai.perception.order import in_order
from moai.perception.store import Store, entry_key
from moai.perception.types import Failure, Perception, Source, merge
from moai.plugins import Registry
from moai.plugins import registry as process_registry

log = logging.getLogger("moai")


class Perceiver:
    """A fixed set of experts, ready to look at images. Calls from several threads are served one after another."""

    def __init__(
        self,
        experts: Sequence[str | Expert],
        *,
        options: Mapping[str, Mapping[str, Any]] | None = None,
        store: Store | None = None,
        device: str = "cpu",
        batch_size: int = 16,
        time_limit: float | None = 60.0,
        registry: Registry | None = None,
    ) -> None:
        """Nothing is loaded yet.

        Args:
            experts: names, or expert objects made by hand.
            options: per expert name, its options.
            store: where perceptions are cached; None caches nothing.
            device: handed to ``Expert.load``.
            batch_size: images per call of ``Expert.perceive``.
            time_limit: seconds per batch; an expert that takes longer is abandoned. None waits for ever.
            registry: where names are looked up; the process-wide one when None.

        Raises:
            ExpertError: unknown expert or option (with the nearest name), an expert named twice, or experts that
                require each other in a circle.
        """
        if batch_size < 1:
            raise ExpertError(f"batch_size must be at least 1, not {batch_size}")
        if time_limit is not None and not time_limit > 0:
            raise ExpertError(f"time_limit must be positive seconds, or None for no limit, not {time_limit}")
        self.experts: tuple[Expert, ...] = in_order(_build(experts, options or {}, registry))
        self.store = store
        self.batch_size = batch_size
        self._isolated = {expert.name: Isolated(expert, device, time_limit) for expert in self.experts}

    def perceive(
        self, images: Sequence[Image.Image], progress: Callable[[int], None] | None = None
    ) -> list[Perception]:
        """Look at images.

        Args:
            images: RGB pictures; the sequence is read batch by batch, so it may load them as it goes.
            progress: called after each batch with the number of images it held.

        Returns:
            One merged perception per image, in order, with a ``Source`` for every expert that answered and a
            ``Failure`` for every one that did not.

        Raises:
            ImageError: an item is no image.
        """
        if isinstance(images, Image.Image):
            raise ImageError("perceive takes a list of images; pass [image]")
        found: list[Perception] = []
        for start in range(0, len(images), self.batch_size):
            stop = min(start + self.batch_size, len(images))
            batch = [_checked(images[index]) for index in range(start, stop)]
            found.extend(self._perceive_batch(batch))
            if progress is not None:
                progress(len(batch))
        return found

    def close(self) -> None:
        """Unload the experts; the next ``perceive`` loads them again."""
        for isolated in self._isolated.values():
            isolated.close()

    def _perceive_batch(self, images: list[Image.Image]) -> list[Perception]:
        keys = [image_key(image) for image in images] if self.store is not None else None
        seen: dict[str, list[Perception]] = {}  # expert name -> what it saw in each image
        for expert in self.experts:
            helpers = [seen[other.name] for other in self.experts if other.role in expert.requires]
            context = [merge([column[i] for column in helpers]) for i in range(len(images))]
            context = [replace(c, failures=()) for c in context]
            outcomes = self._outcomes(expert, images, context, keys)
            seen[expert.name] = [_signed(expert, outcome) for outcome in outcomes]
        return [merge([column[i] for column in seen.values()]) for i in range(len(images))]

    def _outcomes(
        self, expert: Expert, images: list[Image.Image], context: list[Perception], keys: list[str] | None
    ) -> list[Outcome]:
        """What ``expert`` says about each image: from the cache where it is there, else from the expert itself."""
        isolated = self._isolated[expert.name]
        if keys is None or self.store is None:
            return isolated.perceive(images, context)
        entries = [entry_key(key, expert, context[i]) for i, key in enumerate(keys)]
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
            self._keep(fresh)
        return [known[entry] for entry in entries]

    def _keep(self, outcomes: dict[str, Outcome]) -> None:
        good = [(entry, o) for entry, o in outcomes.items() if isinstance(o, Perception) and not o.failures]
        try:
            self.store.put_many(good)
        except AssetError as error:
            # What was perceived is still good for this answer; a full disk must not take it away.
            log.warning("perceptions were not cached: %s", error)


def _signed(expert: Expert, outcome: Outcome) -> Perception:
    if isinstance(outcome, str):
        return Perception(failures=(Failure(expert.name, outcome),))
    return replace(outcome, sources=(Source(expert.name, expert.role, expert.version),))


def _build(
    experts: Sequence[str | Expert], options: Mapping[str, Mapping[str, Any]], registry: Registry | None
) -> list[Expert]:
    built: list[Expert] = []
    for item in experts:
        if isinstance(item, str):
            table = process_registry() if registry is None else registry
            item = _make(table.get_expert(item), options.get(item) or {})
        elif not isinstance(item, Expert):
            raise ExpertError(f"experts are names or Expert objects, not {item!r}")
        elif item.name in options:
            raise ExpertError(f"expert '{item.name}' is already built; pass its options where you make it")
        if item.name in {other.name for other in built}:
            raise ExpertError(f"expert '{item.name}' is listed twice; list it once")
        built.append(item)
    names = {expert.name for expert in built}
    for name in options:
        if name not in names:
            raise ExpertError(f"options are given for expert '{name}', which is not listed{nearest(name, names)}")
    return built


def _make(kind: type[Expert], options: Mapping[str, Any]) -> Expert:
    try:
        return kind(**options)
    except ExpertError:
        raise
    except Exception as error:  # a plugin's own __init__
        reason = f"{type(error).__name__}: {error}"
        raise ExpertError(f"expert '{kind.name}' cannot be built with options {dict(options)}: {reason}") from error


def _checked(image: Any) -> Image.Image:
    plain = isinstance(image, Image.Image) and image.mode == "RGB" and image.width > 0 and image.height > 0
    return image if plain else read_image(image)
