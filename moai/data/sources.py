"""Open the sources of a recipe: each by its format, split by split, and all of them as one sequence of samples.

Knows: the registry of formats. The recipe's keys are described in ``moai/recipe/sections.py``.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from pydantic import ValidationError

from moai import plugins
from moai.data.hold_out import hold_out
from moai.data.mixture import Mixture
from moai.data.samples import Described, Listed, Samples, concatenated
from moai.data.source import Source
from moai.errors import DataError, RecipeError


class SourceSettings(Protocol):
    """What a recipe says of one source."""

    format: str
    path: str | dict[str, str] | None
    name: str | None
    images: str | None
    placeholders: Literal["insert", "refuse"]
    hold_out: dict[str, float]
    splits: tuple[str, ...] | None
    kind: str | None
    response_format: str | None
    weight: float | None
    options: dict[str, Any]


def open_sources(sources: Sequence[SourceSettings], split: str, rest: str = "train", *, seed: int = 0) -> Samples:
    """Open one split of all sources.

    Every sample of every source comes once. Where sources have weights, the split ``rest`` is a
    :class:`~moai.data.mixture.Mixture`, which says what each epoch draws.

    Args:
        sources: as the recipe says.
        split: name of the split.
        rest: name of the split that a source's single path is of.
        seed: of the mixture.

    Raises:
        RecipeError: a format that is unknown or does not take its options, or a split without samples.
        DataError: a file that cannot be read.
    """
    opened = [open_source(source, split, rest) for source in sources]
    there = [(part, source) for part, source in zip(opened, sources, strict=True) if part is not None and len(part)]
    if not there:
        name = label_of(sources)
        raise RecipeError(
            f"the split '{split}' of {name} is empty; choose another split, give data.sources a path for it, or hold "
            f"a share out: hold_out: {{{split}: 0.05}}"
        )
    weights = [source.weight for _, source in there]
    parts = [part for part, _ in there]
    if split == rest and any(weight is not None for weight in weights):
        return Mixture(parts, weights, seed)
    return concatenated(parts)


def open_source(settings: SourceSettings, split: str, rest: str = "train") -> Samples | None:
    """Open one split of a source; None where the source has no such split.

    Raises:
        RecipeError, DataError: as for all sources.
    """
    if settings.splits is not None and split not in settings.splits:
        return None
    held = split in settings.hold_out
    base = rest if held or not isinstance(settings.path, dict) and settings.path is not None else split
    if settings.path is not None and base != split and not held:
        return None
    path = settings.path
    if isinstance(path, dict):
        if base not in path:
            return None
        path = path[base]
    source = Source(settings.format, base, path, settings.name, settings.images, settings.placeholders)
    samples = _call(plugins.registry().get_format(settings.format), source, settings)
    if not isinstance(samples, Samples):
        samples = Listed(samples, f"format '{settings.format}'")
    if settings.kind is not None or settings.response_format is not None:
        samples = Described(samples, settings.kind, settings.response_format)
    if not settings.hold_out or base != rest:
        return samples
    return hold_out(samples, split, settings.hold_out, rest)


def check_sources(sources: Sequence[SourceSettings]) -> None:
    """Refuse formats and data sets that nobody registers, and options that they do not take, before anything is loaded.

    Raises:
        RecipeError: with the nearest name, or the plugin that brings it.
    """
    for one in sources:
        _check_options(plugins.registry().get_format(one.format), f"format '{one.format}'", one.options)
        if one.format == "dataset" and one.name is not None:
            _check_options(plugins.registry().get_dataset(one.name), f"data set '{one.name}'", one.options)


def metric_of(sources: Sequence[SourceSettings]) -> Any:
    """Return the metric of the data that is evaluated: an attribute ``metric`` of the data set's factory or the format.

    Several sources have one only where it is the same for all.
    """
    found = [
        getattr(plugins.registry().get_dataset(one.name) if one.format == "dataset" and one.name else
                plugins.registry().get_format(one.format), "metric", None)
        for one in sources
    ]  # fmt: skip
    return found[0] if all(metric is found[0] for metric in found) else None


def label_of(sources: Sequence[SourceSettings]) -> str:
    """Name the sources for titles and messages: registered names, and files."""
    names = []
    for one in sources:
        path = next(iter(one.path.values()), None) if isinstance(one.path, dict) else one.path
        names.append(str(one.name or path or one.format))
    return " + ".join(dict.fromkeys(names))


def _check_options(factory: Any, name: str, options: Mapping[str, Any]) -> None:
    try:
        inspect.signature(factory).bind(None, **options)
    except TypeError as error:
        raise RecipeError(f"data.sources: options does not fit {name}: {error}") from None


def _call(factory: Any, source: Source, settings: SourceSettings) -> Samples:
    """Call a format with the options of its source; what it does not take is an error that names the key."""
    options: Mapping[str, Any] = settings.options
    _check_options(factory, f"format '{settings.format}'", options)
    try:
        return factory(source, **options)
    except ValidationError as error:
        wrong = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise RecipeError(f"data.sources: options does not fit format '{settings.format}': {wrong}") from None
    except OSError as error:
        name = label_of([settings])
        raise DataError(f"{name} cannot be read: {error.strerror or error}; check the path") from error
