"""The parts of a model by structure: what may train, what trains now, and what a run folder has to hold.

Knows: modules and parameters. A part is what a recipe's stage names: ``connector``, ``compressor``, ``mixers``,
``gates``, ``host`` and ``vision``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from moai.errors import RecipeError
from moai.model.encoders.connectors import leave_out
from moai.model.encoders.image_input import EncoderImages
from moai.model.host.lora import add_lora, lora_parameters

if TYPE_CHECKING:
    from moai.model.modeling import MoaiForConditionalGeneration

Parameters = dict[str, nn.Parameter]  # name, as a run folder has it -> parameter


def parts_of(model: MoaiForConditionalGeneration) -> dict[str, Parameters]:
    """Name the parts that a model has, each with the parameters that train where a stage names it.

    Of the host that is all, or its low-rank adapters where it has some; of the vision encoder all, or its last blocks
    where ``config.trained`` says so; of the connector all but the optional parts that are left out.
    """
    gates = {id(p) for mixer in model.mixers.values() for gate in mixer.gates() for p in gate.parameters()}
    found: dict[str, Parameters] = {}
    for part, module in model.adapters().items():
        named = {f"{part}.{name}": p for name, p in module.named_parameters()}
        idle = tuple(f"{part}.{name}." for name in getattr(module, "left_out", ()))
        found[part] = {name: p for name, p in named.items() if id(p) not in gates and not name.startswith(idle)}
        if part == "mixers":
            found["gates"] = {name: p for name, p in named.items() if id(p) in gates}
    trained = model.config.trained or {}
    own = lora_parameters(model.host) if trained.get("host", {}).get("lora") else dict(model.host.named_parameters())
    found["host"] = {f"host.{name}": p for name, p in own.items()}
    if isinstance(model.images, EncoderImages):
        body = model.images.vision.body
        last = trained.get("vision", {}).get("last")
        own = dict(body.named_parameters()) if last is None else last_blocks(body, last)
        found["vision"] = {f"vision.{name}": p for name, p in own.items()}
    return {name: parameters for name, parameters in found.items() if parameters}


def saved_parameters(model: MoaiForConditionalGeneration) -> Parameters:
    """Name what a run folder holds: our own parts, which no reference names, and frozen ones that trained."""
    parts, trained = parts_of(model), model.config.trained or {}
    return {**model.adapter_parameters(), **{n: p for part in trained for n, p in parts[part].items()}}


def set_connector_parts(model: MoaiForConditionalGeneration, parts: Mapping[str, bool]) -> None:
    """Let the connector run with or without its optional parts, here and in the configuration that is saved.

    Args:
        model: with any image input; without a connector there must be no ``parts``.
        parts: name -> whether it runs; those that are not named do.

    Raises:
        RecipeError: the connector has no optional part of a name.
    """
    settings = model.config.connector
    if not isinstance(model.images, EncoderImages) or settings is None:
        return
    left_out = sorted(name for name, runs in parts.items() if not runs)
    leave_out(model.images.connector, settings["kind"], [*parts])  # names are checked whether they run or not
    leave_out(model.images.connector, settings["kind"], left_out)
    others = {name: value for name, value in settings.items() if name != "left_out"}
    model.config.connector = {**others, "left_out": left_out} if left_out else others


def train_only(model: MoaiForConditionalGeneration, names: Iterable[str]) -> Parameters:
    """Let the parts of these names train, and nothing else; return their parameters by name.

    Raises:
        RecipeError: the model has no such part.
    """
    parts = parts_of(model)
    if missing := [name for name in names if name not in parts]:
        raise RecipeError(f"this model has no part '{missing[0]}' to train; it has {', '.join(parts)}")
    chosen = {name: p for part in names for name, p in parts[part].items()}
    for parameter in model.parameters():
        parameter.requires_grad_(False)
    for parameter in chosen.values():
        parameter.requires_grad_(True)
    model.auxiliary.forget_means()  # of word embeddings, which may train, or may have
    return chosen


def add_trained_parts(model: MoaiForConditionalGeneration) -> None:
    """Give frozen parts that train, by ``config.trained``, what they need: adapters, or memory of their own."""
    trained = model.config.trained or {}
    lora = trained.get("host", {}).get("lora")
    if lora:
        add_lora(model.host, lora, trained["host"].get("targets") or ())
    parts = parts_of(model)
    for part in trained:
        for parameter in parts[part].values():
            # Loaded weights are views of a mapped file, where a tensor begins at any byte.
            parameter.data = parameter.data.clone()


def last_blocks(body: nn.Module, count: int) -> Parameters:
    """Name the parameters of an encoder's last blocks, and of all that follows them.

    Raises:
        RecipeError: the encoder has no list of blocks, or fewer of them.
    """
    lists = {
        name: module for name, module in body.named_modules()
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and len(module) > 1
        and all(any(True for _ in child.parameters()) for child in module)
    }  # fmt: skip
    if not lists:
        raise RecipeError(f"{type(body).__name__} has no list of blocks; leave train.vision.last out")
    name, blocks = min(lists.items(), key=lambda item: item[0].count("."))
    if count > len(blocks):
        raise RecipeError(
            f"the vision encoder has {len(blocks)} blocks; set train.vision.last to {len(blocks)} or less"
        )
    named = dict(body.named_parameters())
    start = f"{name}.{len(blocks) - count}."
    first = next(index for index, parameter in enumerate(named) if parameter.startswith(start))
    return dict(list(named.items())[first:])
