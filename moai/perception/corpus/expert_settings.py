"""Identify experts by what decides their perceptions: names, versions, options and weights.

Knows: the interface of experts. Perceptions of a corpus are read only where all of these are equal.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from moai.errors import CorpusError
from moai.expert import Expert
from moai.perception.cache.packing import FORMAT as PERCEPTION_FORMAT
from moai.perception.running.schedule import in_order
from moai.perception.running.settings import build

Settings = list[dict[str, Any]]  # per expert: name, role, version, options and weights, in the order in which they run


def expert_settings(experts: Sequence[str | Expert], options: Mapping[str, Mapping[str, Any]]) -> Settings:
    """Describe experts as plain JSON types, without loading them.

    Args:
        experts: names, or experts that are built.
        options: per expert's name, for those given by name.

    Raises:
        ExpertError: an unknown expert or option.
        CorpusError: an expert cannot identify its weights.
    """
    return [
        {
            "name": expert.name,
            "role": expert.role,
            "version": expert.version,
            "options": expert.options.model_dump(mode="json"),
            "weights": _weights(expert),
        }
        for expert in in_order(build(experts, options, None))
    ]


def settings_key(settings: Settings) -> str:
    """Hash the settings: SHA-256 in hex. Equal keys mean: same experts, versions, options and weights."""
    return hashlib.sha256(json.dumps([PERCEPTION_FORMAT, settings], sort_keys=True).encode()).hexdigest()


def check_settings(made: Settings, wanted: Settings, where: str, fix: str) -> None:
    """Compare the settings that a corpus was made with to those of this run.

    Args:
        made: of the corpus.
        wanted: of this run.
        where: the corpus, for the message.
        fix: what mends it, for the message.

    Raises:
        CorpusError: they differ; the message has the first difference.
    """
    names, other = [one["name"] for one in made], [one["name"] for one in wanted]
    if names != other:
        listed, asked = ", ".join(names) or "no experts", ", ".join(other) or "no experts"
        raise CorpusError(f"{where} was made by {listed}, not by {asked}; {fix}")
    for one, two in zip(made, wanted, strict=True):
        for part in ("version", "options", "weights", "role"):
            if one[part] != two[part]:
                was, now = (_shown(value[part]) for value in (one, two))
                raise CorpusError(
                    f"{where} was made with {part} {was} of expert '{one['name']}', and this run has {now}; {fix}"
                )


def _shown(value: Any) -> str:
    return json.dumps(value, sort_keys=True)[:120] if isinstance(value, dict) else f"'{value}'"


def _weights(expert: Expert) -> str:
    try:
        found = expert.weights_id()
    except Exception as error:  # a plugin's own code
        reason = f"{type(error).__name__}: {error}"
    else:
        if isinstance(found, str):
            return found
        reason = f"weights_id returned {type(found).__name__}, not str"
    raise CorpusError(
        f"expert '{expert.name}' cannot identify its weights ({reason}), so what it finds could not be told from what "
        "other weights find; get the weights first"
    )
