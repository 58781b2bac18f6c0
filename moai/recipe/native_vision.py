"""Recipes whose host sees for itself (``host.sees: true``): what they leave out, and what they cannot have.

Knows: a recipe's sections as plain data and as objects; neither torch nor the schema, which calls this.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

STEPS = ("step1", "step2")
# Of a training step: both act on image features of ours, on their way from an encoder to the host.
STEP_KEYS = {"image_dropout": 0.0, "train_connector": False}


def settle(data: dict[str, Any], steps: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Raw sections with what a host that sees implies, where the recipe says nothing else; other recipes as they are.

    Args:
        data: the recipe as read; parts of a wrong type are left for the schema to refuse.
        steps: the default of each training step.
    """
    host = data.get("host")
    if not (isinstance(host, dict) and host.get("sees") is True):
        return data
    data = {"vision": None, "connector": None, **data}
    perception, training = (data.get(name, {}) for name in ("perception", "training"))
    if isinstance(perception, dict):
        data["perception"] = {"panoptic_map": False, **perception}
    if isinstance(training, dict):
        given = {name: training.get(name, dict(steps[name])) for name in STEPS}
        filled = {name: {**STEP_KEYS, **part} for name, part in given.items() if isinstance(part, dict)}
        data["training"] = {**training, **filled}
    return data


def problem(recipe) -> str | None:
    """What of a recipe does not fit to who sees in it, with the fix; ``None`` where all does."""
    return _of_a_seeing_host(recipe) if recipe.host.sees else _of_an_encoder(recipe)


def _of_an_encoder(recipe) -> str | None:
    for name in ("vision", "connector"):
        if getattr(recipe, name) is None:
            return (
                f"{name} is null, which only a host with a vision tower of its own allows; set host.sees: true for it"
            )
    if recipe.vision.reference == "host":
        return "vision.reference: host is said as host.sees: true; set that, and leave vision out"
    return None


def _of_a_seeing_host(recipe) -> str | None:
    for name in ("vision", "connector"):
        if getattr(recipe, name) is not None:
            return (
                f"host.sees: true keeps the host's own vision tower and projector, so {name} must not be given; "
                f"leave it out, or set {name}: null over a base that has it"
            )
    if recipe.host.image_token is not None:
        return "host.sees: true takes the image token of the host's own processor; leave host.image_token out"
    if recipe.perception.panoptic_map:
        return "perception.panoptic_map: true needs an encoder of ours, and host.sees: true has none; set it to false"
    for name in STEPS:
        part = getattr(recipe.training, name)
        if part.image_dropout:
            return (
                f"training.{name}.image_dropout zeroes features of a vision encoder of ours, and host.sees: true has "
                "none; set it to 0"
            )
        if part.train_connector:
            return f"training.{name}.train_connector: true, but host.sees: true has no connector; leave it out"
        if part.steps and recipe.mixer.layers == ():
            return f"host.sees: true without mixers leaves training.{name} nothing to train; name mixer.layers"
    return None
