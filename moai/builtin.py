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
    """The four roles of the paper, in English."""
    from moai.perception.verbalize import TEMPLATES

    for (role, language), template in TEMPLATES.items():
        register(role, language, template)


@hookimpl
def register_datasets(register):
    """easy-VQA."""
    register("easy-vqa", _easy_vqa)


@hookimpl
def register_connectors(register):
    """Vision features to decoder width."""
    for name in CONNECTORS:
        register(name, partial(_connector, name))


def _easy_vqa(split: str, **options: Any):
    from moai.data.easy_vqa import easy_vqa

    return easy_vqa(split, **options)


def _connector(name: str, in_width: int, out_width: int, **options: Any):
    from moai.model.connectors import builtin_connectors

    return builtin_connectors()[name](in_width, out_width, **options)
