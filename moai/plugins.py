"""Find plugins, let them register, and keep what they offer; a broken plugin is reported and costs only itself.

Knows: pluggy, entry points and the hook list. A plugin is an entry point in the group ``moai``; the environment
variable ``MOAI_PLUGINS`` restricts which are loaded (empty: none; ``a,b``: only those). What comes with moai is loaded
by name like a stranger's plugin, so nothing that registers is imported here.
"""

from __future__ import annotations

import functools
import logging
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from importlib import import_module
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

from moai import hookspecs
from moai.errors import ExpertError, HostError, MoaiError, RecipeError, nearest
from moai.our_plugins import BROUGHT, how_to_install
from moai.plugin_output import plugin_code
from moai.registrars import Command, registrars

if TYPE_CHECKING:
    from torch import nn

    from moai.expert import Expert
    from moai.types import Sample

log = logging.getLogger("moai")
GROUP = "moai"
BUILTIN = "moai.builtin"


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
    formats: dict[str, Callable[..., Sequence[Sample]]] = field(default_factory=dict)
    connectors: dict[str, Callable[..., nn.Module]] = field(default_factory=dict)
    templates: dict[tuple[str, str], Callable[..., str]] = field(default_factory=dict)  # (role, language) -> template
    commands: dict[str, Command] = field(default_factory=dict)
    hosts: dict[str, str] = field(default_factory=dict)  # model type -> module that makes transformers know it
    recipes: dict[str, Path] = field(default_factory=dict)
    problems: list[PluginProblem] = field(default_factory=list)
    origins: dict[str, str] = field(default_factory=dict)  # expert name -> "distribution version"

    def get_expert(self, name: str) -> type[Expert]:
        """Raises ExpertError with the nearest name."""
        return self._get(self.experts, name, "expert", ExpertError)

    def get_dataset(self, name: str) -> Callable[..., Sequence[Sample]]:
        """Raises RecipeError with the nearest name."""
        return self._get(self.datasets, name, "data set", RecipeError)

    def get_format(self, name: str) -> Callable[..., Sequence[Sample]]:
        """Raises RecipeError with the nearest name."""
        return self._get(self.formats, name, "data format", RecipeError)

    def get_connector(self, name: str) -> Callable[..., nn.Module]:
        """Raises RecipeError with the nearest name."""
        return self._get(self.connectors, name, "connector", RecipeError)

    def get_template(self, role: str, language: str) -> Callable[..., str]:
        """Raises RecipeError naming the languages that the role has."""
        if (role, language) in self.templates:
            return self.templates[role, language]
        known = ", ".join(spoken for owner, spoken in self.templates if owner == role) or "none"
        raise RecipeError(f"role '{role}' has no template in language '{language}'; known: {known}")

    def import_host(self, model_type: str) -> None:
        """Import the module that makes transformers know a model type; one that no plugin registers is left alone.

        Raises:
            HostError: the module cannot be imported, or the plugin of ours that brings the type is not installed.
        """
        if model_type in self.hosts:
            try:
                import_module(self.hosts[model_type])
            except Exception as error:  # an import may do anything
                raise HostError(
                    f"a plugin's module {self.hosts[model_type]} for the host '{model_type}' cannot be imported "
                    f"({_say(error)}); update or uninstall the plugin"
                ) from error
        elif (install := how_to_install("host", model_type)) is not None:
            raise HostError(f"the host '{model_type}' comes with a plugin that is not installed; {install}")

    def _get(self, table: dict[str, Any], name: str, what: str, error: type[MoaiError]) -> Any:
        if name in table:
            return table[name]
        if (install := how_to_install(what, str(name)) if what in BROUGHT else None) is not None:
            raise error(f"the {what} '{name}' comes with a plugin that is not installed; {install}")
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
    from moai import __version__

    into = Registry()
    _add(into, import_module(BUILTIN), "moai", f"moai {__version__}")
    for point in _entry_points(into):
        _load(into, point)
    for plugin in plugins:
        name = getattr(plugin, "__name__", type(plugin).__name__)
        _add(into, plugin, name, name)
    return into


@functools.lru_cache(maxsize=1)
def load_commands() -> dict[str, Command]:
    """Return the commands of plugins, and import no plugin without any.

    Experts bring heavy base classes, and help has to be quick. So a plugin whose module does not name the hook in its
    source is not imported.
    """
    into = Registry()
    for point in _entry_points(into):
        if _names_hook(point, "register_commands"):
            _load(into, point, ("register_commands",))
    for problem in into.problems:
        log.warning("plugin '%s': %s", problem.plugin, problem.reason)
    return into.commands


def _names_hook(point: EntryPoint, hook: str) -> bool:
    """Return whether the source of an entry point's module names a hook; true where the source cannot be read."""
    try:
        spec = find_spec(point.module)
        source = spec.loader.get_source(point.module)  # type: ignore[union-attr]
    except (AttributeError, ImportError, ValueError):  # gone, compiled, or in a package that cannot be imported
        return True
    return source is None or hook in source


def _load(into: Registry, point: EntryPoint, hooks: Sequence[str] | None = None) -> None:
    try:
        with plugin_code():
            plugin = point.load()
    except (Exception, SystemExit) as error:  # an import may do anything
        into.problems.append(PluginProblem(point.name, f"cannot be imported: {_say(error)}"))
        return
    _add(into, plugin, point.name, _distribution(point), hooks)


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


def _add(into: Registry, plugin: object, name: str, origin: str, hooks: Sequence[str] | None = None) -> None:
    """Run one plugin's hooks, all or those named, in a manager of its own, so that pluggy complains of this plugin."""
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
    for hook, register in registrars(into, origin, complain).items():
        if hooks is not None and hook not in hooks:
            continue
        try:
            with plugin_code():
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


def _say(error: BaseException) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
