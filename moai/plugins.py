"""Find plugins, let them register, and keep what they offer; a broken plugin is reported and costs only itself.

Knows: pluggy, entry points and the hook list. A plugin is an entry point in the group ``moai``; the environment
variable ``MOAI_PLUGINS`` restricts which are loaded (empty: none; ``a,b``: only those).
"""

from __future__ import annotations

import functools
import inspect
import logging
import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING, Any

import pluggy

from moai import hookspecs
from moai.errors import ExpertError, MoaiError, RecipeError, nearest

if TYPE_CHECKING:
    from torch import nn

    from moai.expert import Expert
    from moai.types import Sample

log = logging.getLogger("moai")
GROUP = "moai"
_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")


@dataclass
class PluginProblem:
    """What went wrong with one plugin, in a sentence."""

    plugin: str
    reason: str


@dataclass
class Registry:
    """Everything that the loaded plugins offer, by name."""

    experts: dict[str, type[Expert]] = field(default_factory=dict)
    datasets: dict[str, Callable[..., Sequence[Sample]]] = field(default_factory=dict)
    connectors: dict[str, Callable[..., nn.Module]] = field(default_factory=dict)
    templates: dict[tuple[str, str], Callable[..., str]] = field(default_factory=dict)  # (role, language) -> template
    problems: list[PluginProblem] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)  # expert name -> "distribution version"

    def get_expert(self, name: str) -> type[Expert]:
        """Raises ExpertError with the nearest name."""
        return self._get(self.experts, name, "expert", ExpertError)

    def get_dataset(self, name: str) -> Callable[..., Sequence[Sample]]:
        """Raises RecipeError with the nearest name."""
        return self._get(self.datasets, name, "data set", RecipeError)

    def get_connector(self, name: str) -> Callable[..., nn.Module]:
        """Raises RecipeError with the nearest name."""
        return self._get(self.connectors, name, "connector", RecipeError)

    def get_template(self, role: str, language: str) -> Callable[..., str]:
        """Raises RecipeError naming the languages that the role has."""
        if (role, language) in self.templates:
            return self.templates[role, language]
        known = ", ".join(spoken for owner, spoken in self.templates if owner == role) or "none"
        raise RecipeError(f"role '{role}' has no template in language '{language}'; known: {known}")

    def _get(self, table: dict[str, Any], name: str, what: str, error: type[MoaiError]) -> Any:
        if name in table:
            return table[name]
        broken = ", ".join(sorted({problem.plugin for problem in self.problems}))
        hint = f" (plugins with problems: {broken}; see `moai experts`)" if broken else ""
        raise error(f"unknown {what} '{name}'{nearest(str(name), table)}{hint}")


@functools.lru_cache(maxsize=1)
def registry() -> Registry:
    """The process-wide registry, loaded on first use; problems are logged once as warnings."""
    loaded = load_registry()
    for problem in loaded.problems:
        log.warning("plugin '%s': %s", problem.plugin, problem.reason)
    return loaded


def load_registry(*, plugins: Iterable[object] = ()) -> Registry:
    """Load the built-in plugin, the installed entry points and the given plugin objects into a fresh registry."""
    from moai import __version__, builtin

    into = Registry()
    _add(into, builtin, "moai", f"moai {__version__}")
    for point in _entry_points(into):
        try:
            plugin = point.load()
        except (Exception, SystemExit) as error:  # an import may do anything
            into.problems.append(PluginProblem(point.name, f"cannot be imported: {_say(error)}"))
            continue
        _add(into, plugin, point.name, _distribution(point))
    for plugin in plugins:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        _add(into, plugin, name, name)
    return into


def _entry_points(into: Registry) -> Iterator[EntryPoint]:
    found = {(point.name, point.value): point for point in entry_points(group=GROUP)}
    allowed = os.environ.get("MOAI_PLUGINS")
    if allowed is None:
        yield from found.values()
        return
    wanted = list(dict.fromkeys(name.strip() for name in allowed.split(",") if name.strip()))
    names = {name for name, _ in found}
    for name in wanted:
        if name not in names:
            into.problems.append(PluginProblem(name, f"MOAI_PLUGINS asks for it, not installed{nearest(name, names)}"))
    yield from (point for point in found.values() if point.name in wanted)


def _distribution(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist else point.module


def _add(into: Registry, plugin: object, name: str, origin: str) -> None:
    """Run one plugin's hooks in a manager of its own, so that pluggy's complaints can only be about this plugin."""
    manager = pluggy.PluginManager("moai")
    manager.add_hookspecs(hookspecs)
    complain = _Complaints(into, name)
    try:
        manager.register(plugin, name)
    except Exception as error:  # a wrong signature, or an object that misbehaves when inspected
        complain(f"cannot be registered: {_say(error)}")
        return
    if not manager.get_hookcallers(plugin):
        complain("implements no hook; mark its functions with @moai.hookimpl")
    _check_hook_names(manager, plugin, complain)
    for hook, register in _registrars(into, origin, complain).items():
        try:
            getattr(manager.hook, hook)(register=register)
        except (Exception, SystemExit) as error:  # the other plugins go on
            complain(f"{hook} raised {_say(error)}")


@dataclass
class _Complaints:
    into: Registry
    plugin: str

    def __call__(self, reason: str) -> None:
        self.into.problems.append(PluginProblem(self.plugin, reason))


def _check_hook_names(manager: pluggy.PluginManager, plugin: object, complain: Callable[[str], None]) -> None:
    try:
        manager.check_pending()
    except pluggy.PluginValidationError:
        specs = [name for name in vars(hookspecs) if name.startswith("register_")]
        for caller in manager.get_hookcallers(plugin) or ():
            if not caller.has_spec():
                complain(f"implements '{caller.name}', which is no hook{nearest(caller.name, specs)}")


def _registrars(into: Registry, origin: str, complain: Callable[[str], None]) -> dict[str, Callable[..., None]]:
    """The ``register`` function that each hook receives."""

    def put(table: dict[Any, Any], key: Any, value: Any, what: str) -> bool:
        if key in table:
            complain(f"{what} is already registered; rename it, or uninstall the other plugin")
            return False
        if not callable(value):
            complain(f"{what} must be callable, not {type(value).__name__}")
            return False
        table[key] = value
        return True

    def expert(kind: Any) -> None:
        reason = _bad_expert(kind)
        if reason:
            complain(reason)
        elif put(into.experts, kind.name, kind, f"expert '{kind.name}'"):
            into.origins[kind.name] = origin

    def dataset(name: str, factory: Callable[..., Any]) -> None:
        put(into.datasets, name, factory, f"data set '{name}'")

    def connector(name: str, factory: Callable[..., Any]) -> None:
        put(into.connectors, name, factory, f"connector '{name}'")

    def template(role: str, language: str, template: Callable[..., str]) -> None:
        put(into.templates, (role, language), template, f"the template for role '{role}' in '{language}'")

    return {
        "register_experts": expert,
        "register_datasets": dataset,
        "register_connectors": connector,
        "register_templates": template,
    }


def _bad_expert(kind: Any) -> str | None:
    """Why ``kind`` cannot be an expert, or None."""
    from moai.expert import Expert, Options

    if not isinstance(kind, type) or not issubclass(kind, Expert):
        return f"registered {kind!r}; register a class derived from moai.Expert, not an instance or a function"
    if inspect.isabstract(kind):
        return f"expert class {kind.__name__} does not implement perceive(images, context)"
    for attribute in ("name", "role"):
        value = getattr(kind, attribute, None)
        if not isinstance(value, str) or not _NAME.fullmatch(value):
            return (
                f"expert class {kind.__name__}: {attribute} must be lower-case letters, digits, - or _, not {value!r}"
            )
    if not isinstance(getattr(kind, "version", None), str) or not kind.version:
        return f"expert '{kind.name}' has no version; set one, since results are cached under it"
    for attribute in ("requires", "modules"):
        value = getattr(kind, attribute)
        if not isinstance(value, tuple) or not all(isinstance(item, str) for item in value):
            return f"expert '{kind.name}': {attribute} must be a tuple of strings, not {value!r}"
    if not isinstance(kind.Options, type) or not issubclass(kind.Options, Options):
        return f"expert '{kind.name}': Options must be a class derived from moai.expert.Options"
    return None


def _say(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
