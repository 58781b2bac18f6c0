"""Register KOSMOS-1's decoder and connector, its data sets and its recipes.

Knows: names. What they name is imported when it is used.
"""

from __future__ import annotations

from pathlib import Path

import moai


@moai.hookimpl
def register_hosts(register):
    """Register the decoder with sub-LN and xPos."""
    register("moai_kosmos", "moai_kosmos.decoder")


@moai.hookimpl
def register_connectors(register):
    """Register the pooling by learned queries."""
    register("kosmos", _connector)


@moai.hookimpl
def register_datasets(register):
    """Register Raven's matrices, and the small twin's data."""
    register("raven", _raven)
    register("kosmos-twin", _twin)


@moai.hookimpl
def register_recipes(register):
    """Register the recipes in this package."""
    register(Path(__file__).parent / "recipes")


def _connector(in_width: int, out_width: int, **options):
    from moai_kosmos.connector import KosmosConnector

    return KosmosConnector(in_width, out_width, **options)


def _raven(split: str, **options):
    from moai_kosmos.raven import raven

    return raven(split, **options)


def _twin(split: str, **options):
    from moai_kosmos.twin import kosmos_twin

    return kosmos_twin(split, **options)
