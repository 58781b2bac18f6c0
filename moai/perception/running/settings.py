"""Build expert objects from names and options, and spread one setting or several over the experts.

Knows: the registry and how people write settings; every mistake is an ``ExpertError`` before anything is loaded.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from moai.errors import ExpertError, nearest
from moai.expert import Expert
from moai.plugins import Registry
from moai.plugins import registry as process_registry

log = logging.getLogger("moai")

OTHERS = "*"  # in a mapping by expert name: the value for every other expert


def build(
    experts: Sequence[str | Expert], options: Mapping[str, Mapping[str, Any]], registry: Registry | None
) -> list[Expert]:
    """Build the experts that are given by name; see ``Perceiver`` for the arguments and errors."""
    if isinstance(experts, (str, Expert)):
        wanted = f"'{experts}'" if isinstance(experts, str) else f"{type(experts).__name__}()"
        raise ExpertError(f"experts are given as a list; pass [{wanted}]")
    if not isinstance(experts, Iterable):
        raise ExpertError(f"experts are given as a list of names or Expert objects, not {experts!r}")
    _check_options(options)
    built: list[Expert] = []
    for item in experts:
        if isinstance(item, str):
            table = process_registry() if registry is None else registry
            item = _make(table.get_expert(item), options.get(item) or {})
        elif not isinstance(item, Expert):
            made = f"; pass {item.__name__}()" if isinstance(item, type) and issubclass(item, Expert) else ""
            raise ExpertError(f"experts are names or Expert objects, not {item!r}{made}")
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


def _check_options(options: Any) -> None:
    if not isinstance(options, Mapping):
        raise ExpertError(f"options are a mapping of expert name -> its options, not {options!r}")
    for name, given in options.items():
        if given is not None and not isinstance(given, Mapping):
            raise ExpertError(f"the options of expert '{name}' are a mapping of names to values, not {given!r}")


def installed_experts() -> list[str]:
    """Return the names of the registered experts that can run here and that run where none is named."""
    return [name for name, expert in process_registry().experts.items() if expert.by_default and not expert.missing()]


def record_experts(
    names: Sequence[str], options: Mapping[str, Mapping[str, Any]], registry: Registry | None = None
) -> dict[str, dict[str, str]]:
    """Describe the experts that a run is trained with, so that others can be told apart when it is opened.

    Args:
        names, options: of the run's experts.
        registry: resolves the names; the process-wide one when None.

    Returns:
        Expert -> ``role``, ``version``, ``distribution`` and ``distribution_version`` (what brings it), ``weights``
        (where they come from), ``weights_id`` (what they are, empty where version and options say it) and ``licence``.

    Raises:
        ExpertError: an unknown expert or option.
    """
    known = process_registry() if registry is None else registry
    recorded = {}
    for name in names:
        kind = known.get_expert(name)
        package, _, release = known.origins.get(name, "").partition(" ")
        recorded[name] = {
            "role": kind.role,
            "version": kind.version,
            "distribution": package,
            "distribution_version": release,
            "weights": kind.weights,
            "weights_id": _weights_id(kind, options.get(name) or {}),
            "licence": kind.licence,
        }
    return recorded


def _weights_id(kind: type[Expert], options: Mapping[str, Any]) -> str:
    """Identify an expert's weights; empty where it has none, or where they cannot be found here."""
    expert = _make(kind, options)
    try:
        found = expert.weights_id()
    except Exception as error:  # a plugin may raise anything; the expert itself says so when it perceives
        log.debug("expert '%s': weights_id: %s", kind.name, error)
        return ""
    return found if isinstance(found, str) else ""


def usable_experts(
    names: Sequence[str],
    trained: Mapping[str, Mapping[str, str]],
    options: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[str]:
    """Name those of a run's experts that are installed; warn of missing ones, and of other versions and weights.

    Args:
        names: of the run's experts.
        trained: of ``record_experts``, when the run was trained; it may lack experts and fields.
        options: of the run's experts.
    """
    known = process_registry().experts
    for name in names:
        version, package = (trained.get(name, {}).get(key) for key in ("version", "distribution"))
        package = package or "its plugin"
        if name not in known:
            log.warning("expert '%s' is not installed, so answers do without it; pip install %s", name, package)
        elif version is not None and known[name].version != version:
            now = known[name].version
            log.warning("expert '%s' has version %s; the run was trained with %s (%s)", name, now, version, package)
        elif weights := trained.get(name, {}).get("weights_id"):
            here = _weights_id(known[name], (options or {}).get(name) or {})
            if here and here != weights:
                log.warning("expert '%s' has other weights (%.20s) than the run was trained with (%.20s); its answers "
                            "may differ", name, here, weights)  # fmt: skip
    return [name for name in names if name in known]


def per_expert(what: str, value: Any, names: Sequence[str], default: Any, check: Callable[[Any], bool]) -> dict:
    """Spread a setting over the experts: one value for all, or a mapping by name with ``"*"`` for the others.

    Raises:
        ExpertError: a name that is not listed, or a value that ``check`` refuses.
    """
    given = value if isinstance(value, Mapping) else {OTHERS: value}
    for name, item in given.items():
        if name != OTHERS and name not in names:
            raise ExpertError(f"{what} is given for expert '{name}', which is not listed{nearest(name, names)}")
        if not check(item):
            about = "" if name == OTHERS else f" of expert '{name}'"
            raise ExpertError(f"{what}{about} must be {_WANTED[what]}, not {item!r}")
    return {name: given.get(name, given.get(OTHERS, default)) for name in names}


_WANTED = {
    "time_limit": "positive seconds, or None for no limit",
    "device": "a non-empty string such as cpu or cuda:0",
}


def _make(kind: type[Expert], options: Mapping[str, Any]) -> Expert:
    try:
        return kind(**options)
    except ExpertError:
        raise
    except Exception as error:  # a plugin's own __init__
        reason = f"{type(error).__name__}: {error}"
        raise ExpertError(f"expert '{kind.name}' cannot be built with options {dict(options)}: {reason}") from error
