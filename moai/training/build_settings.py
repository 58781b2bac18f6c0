"""The settings of a model and its processor that follow from a recipe, whatever gives the image tokens.

Knows: recipes and the registry. ``build`` puts them together with the loaded parts.
"""

from __future__ import annotations

import copy
from typing import Any

from transformers import PreTrainedConfig

from moai.model.encoders.facts import fact_ends
from moai.model.processor.processor import MoaiProcessor
from moai.perception.running.settings import record_experts
from moai.recipe.schema import Recipe


def word_settings(recipe: Recipe, config: PreTrainedConfig) -> dict[str, Any]:
    """Keyword arguments of a processor: the experts, and how their perceptions are verbalized."""
    p = recipe.perception
    return {
        "experts": list(p.experts),
        "expert_options": copy.deepcopy(p.options),
        "expert_versions": record_experts(p.experts, p.options),
        "time_limit": p.time_limit,
        "language": p.language,
        "style": p.style,
        "inject": p.inject,
        "say_nothing_found": p.say_nothing_found,
        "max_aux_tokens": p.max_tokens,
        "merge_findings": p.merge,
        "max_length": getattr(config.get_text_config(), "max_position_embeddings", None),
    }


def trained_parts(recipe: Recipe) -> dict[str, Any]:
    """The fields of ``MoaiConfig`` that say how our parts are built; the frozen ones aside."""
    mixer = recipe.mixer.model_dump()
    mixer["layers"] = list(mixer["layers"]) if mixer["layers"] is not None else None
    return {
        "compressor": recipe.compressor.model_dump(),
        "mixer": mixer,
        "arithmetic": recipe.arithmetic,
        "context_layer": recipe.perception.context_layer,
        "trained": frozen_parts_that_train(recipe),
    }


def frozen_parts_that_train(recipe: Recipe) -> dict[str, dict[str, Any]] | None:
    """The field of ``MoaiConfig`` that says which of host and encoder a stage trains, and how; None for neither."""
    found: dict[str, dict[str, Any]] = {}
    for stage in recipe.stages:
        for name, part in stage.train.parts().items():
            if name in ("host", "vision"):
                found[name] = part.model_dump(mode="json", exclude={"rate"})
    return found or None


def fact_settings(recipe: Recipe, processor: MoaiProcessor) -> dict[str, Any]:
    """The fields of ``MoaiConfig`` that say how facts are told apart."""
    ends = fact_ends(processor.tokenizer) if recipe.perception.fact_context else None
    return {"fact_ends": ends, "word_order": recipe.perception.word_order}
