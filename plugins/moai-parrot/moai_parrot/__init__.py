"""Register Parrot's connector (arXiv 2406.02539), and recipes that train it.

Knows: names. The connector is imported when a model with it is built.
"""

from __future__ import annotations

from pathlib import Path

import moai


@moai.hookimpl
def register_connectors(register):
    """Register ``parrot``."""
    register("parrot", _parrot)


@moai.hookimpl
def register_recipes(register):
    """Register the recipes in this package."""
    register(Path(__file__).parent / "recipes")


def _parrot(in_width: int, out_width: int, **options):
    from moai_parrot.connector import ParrotConnector

    return ParrotConnector(in_width, out_width, **options)
