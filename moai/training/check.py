"""Check all of a recipe that needs no weights: names, options, arguments, and the layers of a host that is at hand.

Knows: the registry of plugins and configurations of hosts. Nothing is loaded, converted, or downloaded but a
configuration.
"""

from __future__ import annotations

import inspect
from glob import glob
from pathlib import Path

from transformers import PreTrainedConfig

from moai.assets.host import has_configuration
from moai.assets.resolver import is_local
from moai.data.sources import check_sources
from moai.errors import AssetError, RecipeError
from moai.model.host.checks import check_configuration, check_vision
from moai.model.host.layers import check_context_layer, check_layers, mixer_layers
from moai.perception.running.settings import build
from moai.perception.words.verbalize import verbalize
from moai.plugins import registry
from moai.recipe.schema import Recipe
from moai.recipe.sections import EncoderVision, HostVision
from moai.training.arguments import check_arguments, check_sharding
from moai.training.memory_plan.shapes import host_config_of
from moai.training.start import open_start
from moai.types import Perception


def check_recipe(recipe: Recipe) -> list[str]:
    """Refuse what cannot train, as far as it can be told without weights.

    Args:
        recipe: to be checked.

    Returns:
        What could not be checked here, a sentence each.

    Raises:
        MoaiError: an expert, format, data set, connector or wording that is unknown or does not take its options, an
            argument of ``Trainer`` that is refused, a layer that the host has not, or a run that it cannot start as.
    """
    check_arguments(recipe.training.trainer)
    check_sharding(recipe)
    _check_experts(recipe)
    check_sources(recipe.data.sources)
    if isinstance(recipe.vision, EncoderVision):
        _check_connector(recipe.vision.connector.kind, recipe.vision.connector.options)
    return [*_check_start(recipe), *_check_host(recipe), *_missing_files(recipe)]


def _check_experts(recipe: Recipe) -> None:
    p = recipe.perception
    for name in p.options:
        registry().get_expert(name)  # options of one that is left out are no mistake
    build(p.experts, {name: options for name, options in p.options.items() if name in p.experts}, None)
    verbalize(Perception(), language=p.language, style=p.style)


def _check_connector(kind: str, options: dict) -> None:
    try:
        inspect.signature(registry().get_connector(kind)).bind(8, 8, **options)
    except TypeError as error:
        raise RecipeError(f"vision.connector.options does not fit connector '{kind}': {error}") from None


def _check_start(recipe: Recipe) -> list[str]:
    if recipe.start is not None and not is_local(recipe.start):
        return [f"the run that the model starts as: {recipe.start} is not here yet"]
    open_start(recipe)
    return []


def _check_host(recipe: Recipe) -> list[str]:
    h, own_vision = recipe.host, isinstance(recipe.vision, HostVision)
    try:
        if h.scratch is None and not has_configuration(h.reference, h.revision):
            return [f"the host's layers: {h.reference} is not here yet"]
        config = host_config_of(recipe)
    except AssetError as error:
        return [f"the host's layers: {error}"]
    check_configuration(config, h.reference)
    check_vision(config, h.reference, own_vision)
    _check_layers(recipe, config.get_text_config())
    return []


def _check_layers(recipe: Recipe, config: PreTrainedConfig) -> None:
    count = getattr(config, "num_hidden_layers", None)
    if count is None:
        return
    mixer, context = recipe.mixer, recipe.perception.context_layer
    check_layers(count, mixer_layers(count, mixer.layers, mixer.every))
    if context is not None:
        check_context_layer(count, context)


def _missing_files(recipe: Recipe) -> list[str]:
    paths = []
    for source in recipe.data.sources:
        paths += source.path.values() if isinstance(source.path, dict) else [source.path] if source.path else []
    gone = [path for path in paths if not Path(path).expanduser().exists() and not glob(path)]
    return [f"the rows of data.sources: {path} is not there" for path in gone]
