"""Shard a model over the processes of a run by FSDP2, and gather what is saved.

Knows: torch's ``fully_shard``. Each decoder layer of the host is gathered where it runs. All else (adapters, vision,
embeddings) is gathered for a whole step, since whether it runs depends on a process's batch: a collective call that one
process makes and another does not would wait forever.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, fully_shard
from torch.distributed.tensor import DTensor, distribute_tensor

from moai.model.encoders.image_input import EncoderImages
from moai.model.host.layers import decoder_layers
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import saved_parameters


def shard(model: MoaiForConditionalGeneration, device: torch.device, config: Mapping[str, Any]) -> None:
    """Shard all parameters of a model in place, frozen ones too; a second call changes nothing.

    Args:
        model: on any device; each layer is moved to ``device`` by itself.
        device: of this process.
        config: ``reshard_after_forward``, as TrainingArguments' ``fsdp_config`` has it.
    """
    if isinstance(model, FSDPModule):
        return
    mesh = init_device_mesh(device.type, (dist.get_world_size(),))
    for layer in decoder_layers(model.host):
        fully_shard(layer, mesh=mesh, reshard_after_forward=config.get("reshard_after_forward", True))
    fully_shard(model, mesh=mesh, reshard_after_forward=False)


def is_sharded(model: nn.Module) -> bool:
    """Tell whether ``shard`` was called on a model."""
    return isinstance(model, FSDPModule)


def reshard(model: nn.Module) -> None:
    """Free what a forward pass without a backward pass has gathered; without it, parameters stay as gathered."""
    for module in model.modules():
        if isinstance(module, FSDPModule):
            module.reshard()


def gather(tensors: Mapping[str, Tensor], main: bool) -> dict[str, Tensor]:
    """Gather sharded tensors one by one, and return them whole on the CPU; all processes call it with the same names.

    Args:
        tensors: name -> tensor, sharded or whole.
        main: whether this process wants them; others return nothing.
    """
    found = {}
    for name in sorted(tensors):
        value = tensors[name].detach()
        if isinstance(value, DTensor):
            value = value.full_tensor().cpu()
        if main:
            found[name] = value
    return found


def shard_like(value: Tensor, parameter: Tensor) -> Tensor:
    """Shard a whole tensor as a parameter of the same shape is; anything else comes back as it is."""
    if not isinstance(parameter, DTensor) or isinstance(value, DTensor) or value.shape != parameter.shape:
        return value
    # Each process has read the whole tensor, so that none has to be sent.
    whole = value.to(parameter.device)
    return distribute_tensor(whole, parameter.device_mesh, parameter.placements, src_data_rank=None)


def make_whole(model: MoaiForConditionalGeneration, main: bool) -> None:
    """Put whole parameters in the place of those sharded ones that a run folder holds; the model runs no more.

    Args:
        model: sharded.
        main: whether this process saves.
    """
    saved = dict(saved_parameters(model))
    if isinstance(model.images, EncoderImages) and model.config.vision.get("reference") is None:
        saved |= {f"vision.{name}": p for name, p in model.images.vision.body.named_parameters()}
    whole = gather(saved, main)
    if not main:
        return
    by_id = {id(parameter): nn.Parameter(whole[name], False) for name, parameter in saved.items()}
    for module in model.modules():
        for leaf, parameter in module._parameters.items():
            module._parameters[leaf] = by_id.get(id(parameter), parameter)
    model.__class__ = type(model).__mro__[2]  # fully_shard makes a class of (FSDPModule, the model's own)


def with_all_gradients(loss: Tensor, model: nn.Module) -> Tensor:
    """Give each parameter that any process's loss depends on a gradient in every process, zero where it has none.

    FSDP sends the gradients of one process's batch as one piece, so that all have to send the same ones. What no
    process uses, such as modules that were not drawn, stays without a gradient, as in a single process.
    """
    # What is not gathered now belongs to decoder layers, which run in every forward pass.
    parameters = [p for p in model.parameters() if p.requires_grad and not isinstance(p, DTensor)]
    if not parameters:
        return loss
    reached = _reached(loss)
    here = [id(parameter) in reached for parameter in parameters]
    anywhere = torch.tensor(here, dtype=torch.int32, device=loss.device)
    dist.all_reduce(anywhere, op=dist.ReduceOp.MAX)
    missing = [p for p, mine, some in zip(parameters, here, anywhere.tolist(), strict=True) if some and not mine]
    return loss + sum(_nothing(parameter, loss) for parameter in missing) if missing else loss


def _nothing(parameter: nn.Parameter, loss: Tensor) -> Tensor:
    return parameter.flatten()[:0].sum().to(loss.dtype)


def _reached(loss: Tensor) -> set[int]:
    """The ``id`` of each parameter that a loss depends on."""
    stack: list[Any] = [loss.grad_fn]
    seen, found = set(), set()
    while stack:
        node = stack.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        if (variable := getattr(node, "variable", None)) is not None:
            found.add(id(variable))
        stack.extend(following for following, _ in node.next_functions)
    return found
