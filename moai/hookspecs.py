"""The hooks a plugin may implement: one signature, one line each.

A plugin is a module named by an entry point in the group ``moai``. It marks functions with ``moai.hookimpl``; each
receives a ``register`` function and hands over classes or factories. Registration must stay light: heavy imports
belong into ``Expert.load`` or into the factory's body, so that listing plugins costs nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pluggy

if TYPE_CHECKING:
    from moai.expert import Expert
    from moai.types import Sample

hookspec = pluggy.HookspecMarker("moai")
hookimpl = pluggy.HookimplMarker("moai")


@hookspec
def register_experts(register: Callable[[type[Expert]], None]) -> None:
    """Call ``register(ExpertClass)`` once per expert."""


@hookspec
def register_datasets(register: Callable[[str, Callable[..., Sequence[Sample]]], None]) -> None:
    """Call ``register(name, factory)``; ``factory(split, **options)`` returns a sequence of ``moai.types.Sample``."""


@hookspec
def register_formats(register: Callable[[str, Callable[..., Sequence[Sample]]], None]) -> None:
    """Call ``register(name, format)``; ``format(source, **options)`` returns samples, lazily, by ``LazySamples``."""


@hookspec
def register_connectors(register: Callable[[str, Callable[..., Any]], None]) -> None:
    """Call ``register(name, factory)``; ``factory(in_width, out_width, **options)`` returns a ``torch.nn.Module``."""


@hookspec
def register_templates(register: Callable[[str, str, Callable[..., str]], None]) -> None:
    """Call ``register(role, language, template)``; ``template(perception)`` returns the text for that role."""


@hookspec
def register_commands(register: Callable[[str, str, str], None]) -> None:
    """Call ``register(name, target, help)``: ``moai NAME``; ``target`` is ``"module:attribute"`` of a click command.

    Nothing is imported before the command runs. Implement it in the module that the entry point names: ``moai --help``
    imports no plugin whose source does not name this hook.
    """


@hookspec
def register_hosts(register: Callable[[str, str], None]) -> None:
    """Call ``register(model_type, module)``; the module is imported before a host of that type is loaded.

    It adds its classes to ``AutoConfig`` and ``AutoModelForCausalLM`` or ``AutoModelForImageTextToText``.
    """


@hookspec
def register_recipes(register: Callable[[str | Path], None]) -> None:
    """Call ``register(folder)``; ``moai train NAME`` finds the YAML files in it, ``NAME`` being the path below it."""
