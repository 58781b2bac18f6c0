"""Run a host on packed rows: masks by which no document of a row attends to another, and positions of each its own.

Knows: tensors and transformers' causal language models.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from moai.errors import HostError

TOLERANCE = 1e-3  # of the probe's logits, relative to their size; in half precision a host rounds


def packed_inputs(document_ids: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """Build the mask and the positions of packed rows.

    Args:
        document_ids: ``(B, S)``: number of each token's document in its row, 0 at padding.
        dtype: of the mask.

    Returns:
        what is added to attention logits, ``(B, 1, S, S)``: 0 where a token attends to an earlier one of its document;
        and position numbers ``(B, S)``, from 0 in each document.
    """
    width = document_ids.shape[1]
    same = document_ids[:, :, None] == document_ids[:, None, :]
    causal = torch.ones(width, width, dtype=torch.bool, device=document_ids.device).tril()
    allowed = same & causal
    mask = torch.zeros(allowed.shape, dtype=dtype, device=document_ids.device)
    return mask.masked_fill(~allowed, torch.finfo(dtype).min)[:, None], allowed.sum(dim=2) - 1


@torch.no_grad()
def check_packing(host: nn.Module, longest: int) -> None:
    """Refuse a host that does not give packed documents the logits that they have alone.

    Args:
        host: a loaded causal language model.
        longest: tokens of the longest row.

    Raises:
        HostError: says to leave packing out.
    """
    name, advice = type(host).__name__, "leave training.packing out"
    window = getattr(host.config, "sliding_window", None)
    layers = getattr(host.config, "layer_types", None) or ["sliding_attention"]
    if window and window < longest and "sliding_attention" in layers and getattr(host.config, "use_sliding_window", 1):
        raise HostError(f"{name} attends within {window} tokens, which packed rows of {longest} would not; {advice}")
    embeddings = host.get_input_embeddings().weight
    ids = (torch.arange(12, device=embeddings.device) * 7 + 3) % embeddings.shape[0]
    mask, positions = packed_inputs(torch.tensor([[1] * 5 + [2] * 7], device=ids.device), embeddings.dtype)
    try:
        packed = host(input_ids=ids[None], attention_mask=mask, position_ids=positions, use_cache=False).logits[0]
        alone = [host(input_ids=part[None], use_cache=False).logits[0] for part in (ids[:5], ids[5:])]
    except Exception as error:  # a host may do anything with a mask that it does not know
        said = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise HostError(f"{name} does not take the masks of packed rows ({said}); {advice}") from error
    wanted = torch.cat(alone).float()
    near = TOLERANCE if embeddings.dtype == torch.float32 else 100 * torch.finfo(embeddings.dtype).eps
    if not torch.allclose(packed.float(), wanted, atol=near * float(wanted.abs().max()), rtol=0):
        raise HostError(f"{name} lets packed documents attend to each other; {advice}")
