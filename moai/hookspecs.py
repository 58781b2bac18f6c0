"""The hooks a plugin may implement: one signature, one line each.

A plugin is a module named by an entry point in the group ``moai``. It marks functions with ``moai.hookimpl``; each
receives a ``register`` function and hands over classes or factories. Registration must stay light: heavy imports
belong into ``Expert.load`` or into the factory's body, so that listing plugins costs nothing.
"""

from __future__ import annotations

import pluggy

hookspec = pluggy.HookspecMarker("moai")
hookimpl = pluggy.HookimplMarker("moai")


@hookspec
def register_experts(register):
    """Call ``register(ExpertClass)`` once per expert."""


@hookspec
def register_datasets(register):
    """Call ``register(name, factory)``; ``factory(split, **options)`` returns a sequence of ``moai.data.Sample``."""


@hookspec
def register_connectors(register):
    """Call ``register(name, factory)``; ``factory(in_width, out_width, **options)`` returns a ``torch.nn.Module``."""


@hookspec
def register_templates(register):
    """Call ``register(role, language, template)``; ``template(perception)`` returns the text for that role."""
