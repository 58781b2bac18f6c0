"""The core's own plugin: what comes with the library registers through the same hooks as everything else.

Factories import inside their bodies, so that listing names loads neither torch nor a data set.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from moai.hookspecs import hookimpl

CONNECTORS = ("mlp", "linear", "average")


@hookimpl
def register_templates(register):
    """The four roles of the paper in eight languages, and English in its compact style."""
    from moai.perception.words import compact, english, languages

    for module in (english, compact, languages):
        for (role, language), template in module.TEMPLATES.items():
            register(role, language, template)


@hookimpl
def register_datasets(register):
    """easy-VQA and scenes."""
    register("easy-vqa", _easy_vqa)
    register("scenes", _scenes)


@hookimpl
def register_connectors(register):
    """Vision features to decoder width."""
    for name in CONNECTORS:
        register(name, partial(_connector, name))


def _easy_vqa(split: str, **options: Any):
    from moai.data.easy_vqa import easy_vqa

    return easy_vqa(split, **options)


def _scenes(split: str, **options: Any):
    from moai.data.scenes import scenes

    return scenes(split, **options)


def _connector(name: str, in_width: int, out_width: int, **options: Any):
    from moai.model.encoders.connectors import builtin_connectors

    return builtin_connectors()[name](in_width, out_width, **options)
