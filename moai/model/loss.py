"""What training minimises: the answers' cross-entropy, and the losses of a host's own routers while the host trains.

Knows: tensors, and transformers' convention for hosts with a mixture of experts: ``output_router_logits`` asks for
``aux_loss`` in the output, and ``router_aux_loss_coef`` of the configuration weighs it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor

if TYPE_CHECKING:
    from moai.model.modeling import MoaiForConditionalGeneration

WEIGHT = "router_aux_loss_coef"  # in the configuration of a host with routers


def router_arguments(model: MoaiForConditionalGeneration) -> dict[str, bool]:
    """Return what asks the host for its routers' loss; nothing where it has none, or does not train."""
    trains = model.training and model.get_input_embeddings().weight.requires_grad
    asked = trains and getattr(model.host.config.get_text_config(), WEIGHT, None)
    return {"output_router_logits": True} if asked else {}


def training_loss(
    model: MoaiForConditionalGeneration, output: Any, logits: Tensor, targets: Tensor, items: Tensor | int | None
) -> Tensor:
    """Compute the answers' loss, plus that of the host's routers where ``output`` has one.

    With ``items`` the routers' loss is weighed by this batch's share of them, so that accumulated batches are a mean.

    Args:
        model: for the weight.
        output: of the host.
        logits, targets, items: of :func:`answer_loss`.
    """
    loss = answer_loss(logits, targets, items)
    routers = getattr(output, "aux_loss", None)
    if not model.training or routers is None:
        return loss
    share = 1.0 if items is None else (targets != -100).sum() / items
    return loss + getattr(model.host.config.get_text_config(), WEIGHT) * share * routers.to(loss.device)


def answer_loss(logits: Tensor, targets: Tensor, items: Tensor | int | None) -> Tensor:
    """Cross-entropy of ``logits (B, T + 1, V)``, the last of which has no target, with ``targets (B, T)``.

    The mean over the targets, or their sum over ``items``; zero, with zero gradients, without a target.
    """
    if not bool((targets != -100).any()):
        return logits.float().sum() * 0.0
    flat = logits[:, :-1].flatten(0, 1).float()
    if items is None:
        return F.cross_entropy(flat, targets.flatten())
    return F.cross_entropy(flat, targets.flatten(), reduction="sum") / items
