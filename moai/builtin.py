"""The core's own plugin: what comes with the library registers through the same hooks as everything else.

Factories import inside their bodies, so that listing names loads neither torch nor a data set.
"""

from __future__ import annotations

import inspect
from importlib import import_module
from typing import Any

from moai.hookspecs import hookimpl

CONNECTORS = ("mlp", "linear", "average")
FORMATS = ("jsonl", "llava", "captions", "interleaved", "instructions", "vqa", "hf", "dataset")


@hookimpl
def register_templates(register):
    """The four roles of the paper in eight languages, and English in its compact style."""
    from moai.perception.words import compact, english, languages

    for module in (english, compact, languages):
        for (role, language), template in module.TEMPLATES.items():
            register(role, language, template)


@hookimpl
def register_formats(register):
    """Layouts of data files, and registered data sets by name."""
    for name in FORMATS:
        register(name, _Format(name))


@hookimpl
def register_connectors(register):
    """Vision features to decoder width."""
    for name in CONNECTORS:
        register(name, _Connector(name))


@hookimpl
def register_commands(register):
    """The commands that come with moai."""
    from moai.cli.main import COMMANDS

    for name, command in COMMANDS.items():
        register(name, *command)


@hookimpl
def register_recipes(register):
    """The recipes that come with moai, where they are installed as files."""
    from moai.recipe.places import shipped_folder

    folder = shipped_folder()
    if folder is not None:
        register(folder)


class _Format:
    """A format that is imported when it is first used: ``moai.data.formats.NAME`` has a function of that name."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def __signature__(self):
        return inspect.signature(self._function)

    @property
    def metric(self):
        """How the format's answers are scored beside exact match, or None."""
        return getattr(self._function, "metric", None)

    @property
    def _function(self):
        return getattr(import_module(f"moai.data.formats.{self.name}"), self.name)

    def __call__(self, source: Any, **options: Any):
        return self._function(source, **options)


class _Connector:
    """A connector that is imported when it is first used."""

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def __signature__(self):
        return inspect.signature(self._class)

    @property
    def _class(self):
        from moai.model.encoders.connectors import builtin_connectors

        return builtin_connectors()[self.name]

    def __call__(self, in_width: int, out_width: int, **options: Any):
        return self._class(in_width, out_width, **options)
