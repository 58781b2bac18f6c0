"""Start a recipe's model as a run ended: ``start: RUN``.

Knows: recipes, run folders and the parts of a model. All that the run folder holds is taken, or the start is refused:
where the recipe's model has no such part, has it in another shape, or would compute something else with it. What the
run has not starts as it would without.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from moai.assets.known_hashes import known_sha256
from moai.assets.resolver import resolve
from moai.errors import AssetError, CheckpointError, RecipeError
from moai.model.config import MoaiConfig
from moai.model.host.scratch import scratch_config
from moai.model.mixer.image_stream import with_image_stream
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import saved_parameters
from moai.model.run_folder import VISION, WEIGHTS, check_manifest, host_hashes
from moai.model.run_format import check_format
from moai.recipe.schema import Recipe
from moai.recipe.sections import EncoderVision
from moai.recipe.stage_rules import attention_stages, check_images_reach
from moai.training.build_settings import frozen_parts_that_train, trained_parts

Settings = dict[str, Any]  # key of a recipe -> its value


class Start(NamedTuple):
    """A run that a model starts as."""

    run: str  # as the recipe names it
    folder: Path
    config: MoaiConfig

    @property
    def words_alone(self) -> bool:
        """Whether its images have no tokens."""
        return self.config.vision["kind"] == "none"

    def trained(self, recipe: Recipe) -> dict[str, dict[str, Any]] | None:
        """The field ``trained`` of ``MoaiConfig``: what trained of host and encoder before or will, and is saved.

        Raises:
            CheckpointError: both train one part in different forms.
        """
        theirs, ours = self.config.trained or {}, frozen_parts_that_train(recipe) or {}
        for part in sorted(theirs.keys() & ours.keys()):
            if theirs[part] != ours[part]:
                raise CheckpointError(
                    f"start: {self.run} trained its {part} as {json.dumps(theirs[part])}, and a stage trains it as "
                    f"{json.dumps(ours[part])}; give train.{part} the same form"
                )
        return {**theirs, **ours} or None


def open_start(recipe: Recipe) -> Start | None:
    """Open the run that a recipe's model starts as, and compare its settings; None without ``start``.

    Raises:
        AssetError: there is no such run.
        CheckpointError: it is damaged, of another format, or has another setting than the recipe.
        RecipeError: it has no connector, and no stage gives the recipe's an image.
    """
    if recipe.start is None:
        return None
    try:
        folder = resolve(recipe.start)
    except AssetError as error:
        raise AssetError(f"start: {error}; or train the run first") from None
    check_manifest(folder)
    check_format(folder)
    start = Start(recipe.start, folder, MoaiConfig.from_pretrained(folder))
    theirs, ours = start.config.vision["kind"], recipe.vision.kind
    if theirs != ours and not (start.words_alone and ours == "encoder"):
        raise _other(start, "vision.kind", theirs, ours)
    if theirs == ours == "encoder":
        _compare(start, _vision_settings(start.config), recipe)
    with safe_open(folder / WEIGHTS, "pt") as file:
        mixes = any(name.startswith("mixers.") for name in file.keys())
    if mixes:
        _compare(start, _mixing_settings(start.config), recipe)
        _check_attention(start, recipe)
    if theirs != ours:  # the connector is fresh
        try:
            check_images_reach(recipe.stages)
        except ValueError as error:
            raise RecipeError(str(error)) from None
    start.trained(recipe)
    return start


def check_frozen_parts(start: Start, recipe: Recipe) -> None:
    """Refuse another host or encoder than the one that the run was trained around.

    Raises:
        CheckpointError: names the key, and what to set it to.
    """
    _check_host(start, recipe)
    encoder, theirs = recipe.vision, start.config.vision
    if not isinstance(encoder, EncoderVision) or start.words_alone:
        return
    path = None if encoder.reference is None else resolve(encoder.reference, encoder.revision)
    if path is not None and path.is_file() and theirs.get("sha256"):
        same = known_sha256(path) == theirs["sha256"]
    else:
        same = _same_place(theirs, encoder.reference, encoder.revision)
    if not same:
        raise _other(start, "vision.reference", theirs.get("reference"), encoder.reference)


def start_as(model: MoaiForConditionalGeneration, start: Start) -> None:
    """Give a fresh model the parts of a run, in place.

    Args:
        model: whose ``config.trained`` is that of :meth:`Start.trained`.
        start: the run.

    Raises:
        CheckpointError: the model has not one of its parts, or has it in another shape.
    """
    own, adapters = saved_parameters(model), model.adapters()
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in load_file(start.folder / WEIGHTS).items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    if start.words_alone and model.images.has_tokens and {"mixers"} <= parts.keys() & adapters.keys():
        parts["mixers"] = with_image_stream(model.mixers, parts["mixers"])
    for part, tensors in parts.items():
        if part in adapters:
            _fill(adapters[part], tensors, part, start)
        else:
            ours = {name.partition(".")[2]: p for name, p in own.items() if name.startswith(f"{part}.")}
            _copy(ours, tensors, part, start)
    if (start.folder / VISION).is_file():  # an encoder from random weights, which are other ones with another seed
        model.images.vision.body.load_state_dict(load_file(start.folder / VISION))
    model.auxiliary.forget_means()  # of word embeddings, which may be others now


def _vision_settings(config: MoaiConfig) -> Settings:
    """What connectors of equal shapes may differ in."""
    found = {f"vision.{key}": config.vision.get(key) for key in ("architecture", "layer", "drop_first")}
    return {**found, "vision.connector.kind": (config.connector or {}).get("kind")}


def _mixing_settings(config: MoaiConfig) -> Settings:
    """All that says what mixers and compressor are and compute; in which layers they are, their names say."""
    parts = {"compressor": config.compressor or {}, "mixer": config.mixer or {}}
    found = {f"{part}.{key}": value for part, given in parts.items() for key, value in given.items()}
    return {
        "arithmetic": config.arithmetic,
        **{key: value for key, value in found.items() if key not in ("mixer.layers", "mixer.every")},
        "perception.context_layer": config.context_layer,
        "perception.fact_context": config.fact_ends is not None,
        "perception.word_order": config.word_order,
    }


def _compare(start: Start, theirs: Settings, recipe: Recipe) -> None:
    ours = {**recipe.model_dump(mode="json"), **trained_parts(recipe)}
    for key, value in theirs.items():
        here: Any = ours
        for name in key.split("."):
            here = here.get(name) if isinstance(here, dict) else None
        if here != value:
            raise _other(start, key, value, here)


def _check_attention(start: Start, recipe: Recipe) -> None:
    if stages := attention_stages(recipe):
        raise CheckpointError(
            f"start: {start.run} has mixers, and stages.{stages[0].name} with objective: attention needs mixers that "
            "change nothing yet; leave that stage out, or start from a run without mixers"
        )


def _check_host(start: Start, recipe: Recipe) -> None:
    theirs, h, trained = start.config.host, recipe.host, (start.config.trained or {}).get("host")
    scratch = bool(theirs.get("scratch"))
    if scratch != (h.scratch is not None):
        names = {True: "random weights (host.scratch)", False: "those that host.reference names"}
        raise CheckpointError(
            f"start: the host of {start.run} began with {names[scratch]}, and this recipe's with {names[not scratch]}; "
            "give host as that run's recipe has it"
        )
    if h.scratch is not None:
        made, saved = scratch_config(h.scratch), start.config.text_config
        for key in h.scratch:
            if getattr(made, key) != getattr(saved, key, None):
                raise _other(start, f"host.scratch.{key}", getattr(saved, key, None), getattr(made, key))
        if not _same_place(theirs, h.reference, h.revision):  # of the tokenizer
            raise _other(start, "host.reference", theirs["reference"], h.reference)
    elif theirs.get("sha256") and theirs["sha256"] != host_hashes(h.reference, h.revision):
        raise _other(start, "host.reference", theirs["reference"], h.reference)
    if trained is not None and not trained.get("lora") and h.quantization is not None:
        raise CheckpointError(
            f"start: {start.run} holds all weights of its host, which a quantized one cannot take; "
            "set host.quantization to null"
        )


def _same_place(theirs: dict[str, Any], reference: str | None, revision: str | None) -> bool:
    if theirs.get("reference") == reference:
        return theirs.get("revision") == revision
    if reference is None or theirs.get("reference") is None:
        return False
    places = [Path(name).expanduser() for name in (reference, theirs["reference"])]
    return all(place.exists() for place in places) and places[0].samefile(places[1])


def _fill(module: nn.Module, tensors: dict[str, Tensor], part: str, start: Start) -> None:
    """Load a part by its own rules: a module may fit what it gets to its size."""
    expected = set(dict(module.named_parameters()))
    if expected != tensors.keys():
        raise _misfit(part, sorted(expected ^ tensors.keys())[0], start)
    try:
        module.load_state_dict(tensors, strict=False)  # buffers are not saved
    except RuntimeError as error:
        raise _misfit(part, str(error).strip().splitlines()[-1].strip(" \t."), start) from None


def _copy(own: dict[str, nn.Parameter], tensors: dict[str, Tensor], part: str, start: Start) -> None:
    shapes = [{name: tuple(tensor.shape) for name, tensor in given.items()} for given in (own, tensors)]
    if shapes[0] != shapes[1]:
        name, shape = sorted(set(shapes[0].items()) ^ set(shapes[1].items()))[0]
        raise _misfit(part, f"{name} {shape}", start)
    with torch.no_grad():
        for name, parameter in own.items():
            parameter.copy_(tensors[name])


def _misfit(part: str, what: str, start: Start) -> CheckpointError:
    return CheckpointError(
        f"start: the {part} of {start.run} does not fit this recipe's, or this recipe has none (first misfit: {what}); "
        "give this part as that run's recipe has it, or start from another run"
    )


def _other(start: Start, key: str, theirs: Any, ours: Any) -> CheckpointError:
    theirs, ours = (value if isinstance(value, str) else json.dumps(value) for value in (theirs, ours))
    return CheckpointError(f"start: {start.run} has {key}: {theirs}, and this recipe {ours}; set {key} to {theirs}")
