"""The ``register`` function that each hook receives: what is wrong or there already is complained about, not taken.

Knows: what each kind of thing must look like. Nothing that is handed over is called or imported here.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from moai.plugins import Registry

_NAME = re.compile(r"[a-z0-9][a-z0-9_.-]*")
_MODULE = r"[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*"

Complain = Callable[[str], None]


class Command(NamedTuple):
    """A subcommand of ``moai``: where it is, ``"module:attribute"``, and its line in the help."""

    target: str
    help: str


def registrars(into: Registry, origin: str, complain: Complain) -> dict[str, Callable[..., None]]:
    """Return hook -> its ``register`` function, which fills one table of the registry."""

    def expert(kind: Any) -> None:
        reason = bad_expert(kind)
        if reason:
            complain(reason)
        elif _put(into.experts, kind.name, kind, f"expert '{kind.name}'", complain):
            into.origins[kind.name] = origin

    def dataset(name: str, factory: Callable[..., Any]) -> None:
        _put_callable(into.datasets, name, factory, f"data set '{name}'", complain)

    def format(name: str, factory: Callable[..., Any]) -> None:
        _put_callable(into.formats, name, factory, f"data format '{name}'", complain)

    def connector(name: str, factory: Callable[..., Any]) -> None:
        _put_callable(into.connectors, name, factory, f"connector '{name}'", complain)

    def template(role: str, language: str, template: Callable[..., str]) -> None:
        what = f"the template for role '{role}' in '{language}'"
        _put_callable(into.templates, (role, language), template, what, complain)

    def command(name: str, target: str, help: str) -> None:
        reason = _bad_command(name, target, help)
        if reason:
            complain(reason)
        else:
            _put(into.commands, name, Command(target, help), f"command '{name}'", complain)

    def host(model_type: str, module: str) -> None:
        if not isinstance(model_type, str) or not model_type:
            complain(f"a host's model type is a string, as in its config.json, not {model_type!r}")
        elif not isinstance(module, str) or not re.fullmatch(_MODULE, module):
            complain(f"host '{model_type}': give the dotted name of a module to import, not {module!r}")
        else:
            _put(into.hosts, model_type, module, f"host '{model_type}'", complain)

    def recipes(folder: str | Path) -> None:
        found = _recipes_in(folder)
        if not found:
            complain(f"recipes: {folder!r} is no folder with YAML files; give the folder in which they are installed")
        for name, path in found.items():
            _put(into.recipes, name, path, f"recipe '{name}'", complain)

    return {
        "register_experts": expert,
        "register_datasets": dataset,
        "register_formats": format,
        "register_connectors": connector,
        "register_templates": template,
        "register_commands": command,
        "register_hosts": host,
        "register_recipes": recipes,
    }


def _put(table: dict[Any, Any], key: Any, value: Any, what: str, complain: Complain) -> bool:
    if key in table:
        complain(f"{what} is already registered; rename it, or uninstall the other plugin")
        return False
    table[key] = value
    return True


def _put_callable(table: dict[Any, Any], key: Any, value: Any, what: str, complain: Complain) -> None:
    if key in table or callable(value):
        _put(table, key, value, what, complain)
    else:
        complain(f"{what} must be callable, not {type(value).__name__}")


def _bad_command(name: Any, target: Any, help: Any) -> str | None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        return f"a command's name must be lower-case letters, digits, - or _, not {name!r}"
    if not isinstance(target, str) or not re.fullmatch(rf"{_MODULE}:[A-Za-z_]\w*", target):
        return f"command '{name}': give 'module:attribute' of a click command, not {target!r}"
    if not isinstance(help, str) or not help.strip() or "\n" in help:
        return f"command '{name}': its help must be one line, not {help!r}"
    return None


def _recipes_in(folder: Any) -> dict[str, Path]:
    """Return name -> file of a folder's YAML files; a name is the path below the folder, without ``.yaml``."""
    if not isinstance(folder, (str, Path)) or not Path(folder).is_dir():
        return {}
    paths = {path.relative_to(folder).with_suffix("").as_posix(): path for path in Path(folder).rglob("*.yaml")}
    return dict(sorted(paths.items()))


def bad_expert(kind: Any) -> str | None:
    """Return why ``kind`` cannot be an expert, or ``None``."""
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
