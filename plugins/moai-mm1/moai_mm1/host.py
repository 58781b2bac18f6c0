"""Define a Llama with a mixture of experts in every k-th layer, as in MM1 (arXiv 2403.09611, section 3.4).

Knows: modules. The mixture takes a feed-forward network's place; everything else is transformers' Llama. Its routers
learn by two further losses: load balance (Switch Transformer, arXiv 2101.03961) and the router z-loss (ST-MoE, arXiv
2202.08906).
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, LlamaForCausalLM
from transformers.modeling_outputs import MoeCausalLMOutputWithPast
from transformers.models.llama.modeling_llama import LlamaMLP

from moai.plugin_api import CACHE, has_values, takes_cache
from moai_mm1.config import MoELlamaConfig

# Logits of the forward pass that runs, where they are asked for. A layer that runs again in the backward pass finds
# none: the losses were computed by then.
_LOGITS: ContextVar[list[Tensor] | None] = ContextVar("moai_mm1_router_logits", default=None)


class MixtureOfExperts(nn.Module):
    """Compute each token by the ``k`` experts that its router scores highest, weighed to a sum of one."""

    def __init__(self, config: MoELlamaConfig) -> None:
        super().__init__()
        self.chosen = config.num_experts_per_tok
        self.router = nn.Linear(config.hidden_size, config.num_local_experts, bias=False)
        self.experts = nn.ModuleList(LlamaMLP(config) for _ in range(config.num_local_experts))

    def forward(self, hidden_states: Tensor) -> Tensor:
        """``(B, S, D) -> (B, S, D)``; no token is dropped, however many an expert gets."""
        x = hidden_states.flatten(0, -2)  # (T, D)
        logits = self.router(x)  # (T, E)
        asked = _LOGITS.get()
        if asked is not None:
            asked.append(logits)
        weights, experts = logits.float().softmax(dim=-1).topk(self.chosen, dim=-1)  # (T, k)
        weights = weights / weights.sum(dim=-1, keepdim=True)
        order = experts.flatten().argsort(stable=True)  # of T * k pairs of token and expert, expert by expert
        parts = x[order // self.chosen].split(self._counts(experts))
        computed = torch.cat([expert(part) for expert, part in zip(self.experts, parts, strict=True)])
        computed = computed[order.argsort()].unflatten(0, (-1, self.chosen))  # (T, k, D)
        mixed = (computed * weights[..., None].to(computed.dtype)).sum(dim=1)
        return mixed.view_as(hidden_states)

    def _counts(self, experts: Tensor) -> list[int]:
        """How many tokens each expert gets; on shapes alone, as for a plan, equally many."""
        number = len(self.experts)
        if has_values(experts):
            return experts.flatten().bincount(minlength=number).tolist()
        each, more = divmod(experts.numel(), number)
        return [each + (index < more) for index in range(number)]


class MoELlamaForCausalLM(LlamaForCausalLM):
    """Extend ``LlamaForCausalLM`` by mixtures of experts in the layers that its configuration says."""

    config_class = MoELlamaConfig

    def __init__(self, config: MoELlamaConfig) -> None:
        super().__init__(config)
        for number in config.mixture_layers():
            self.model.layers[number].mlp = MixtureOfExperts(config)
        self.post_init()

    @takes_cache
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache=None,
        labels: Tensor | None = None,
        output_router_logits: bool | None = None,
        **kwargs: Any,
    ):
        """Run the Llama; with ``output_router_logits`` also compute the routers' loss, as transformers' Mixtral does.

        ``aux_loss`` times ``router_aux_loss_coef`` is what training adds: the load-balance loss and the z-loss, each by
        its own weight, the mean over the mixtures; padding does not count.
        """
        asked = self.config.output_router_logits if output_router_logits is None else output_router_logits
        logits: list[Tensor] | None = [] if asked else None
        token = _LOGITS.set(logits)
        try:
            output = super().forward(input_ids, attention_mask, position_ids, **{CACHE: cache}, labels=labels, **kwargs)
        finally:
            _LOGITS.reset(token)
        if not logits:
            return output
        mask = attention_mask if attention_mask is not None and attention_mask.ndim == 2 else None
        losses = [self._router_loss(one, mask) for one in logits]
        auxiliary = torch.stack(losses).mean() / self.config.router_aux_loss_coef
        found = {**output, "aux_loss": auxiliary, "router_logits": tuple(logits)}
        if labels is not None:
            found["loss"] = output.loss + self.config.router_aux_loss_coef * auxiliary
        return MoeCausalLMOutputWithPast(**found)

    def _router_loss(self, logits: Tensor, mask: Tensor | None) -> Tensor:
        """Compute one router's two losses by their weights, of logits ``(T, E)``."""
        config = self.config
        balance = load_balance(logits.float(), config.num_experts_per_tok, mask)
        return config.router_aux_loss_coef * balance + config.router_z_loss_coef * router_z(logits.float(), mask)


def load_balance(logits: Tensor, chosen: int, mask: Tensor | None = None) -> Tensor:
    """Compute ``E * sum(f * p)``: the share of choices that each of ``E`` experts gets, times its mean probability.

    It is 1 where both are equal over the experts, and ``E / chosen`` or more where they are as unequal as can be.

    Args:
        logits: ``(T, E)``.
        chosen: experts of a token.
        mask: ``T`` values in any shape, false where there is padding.
    """
    weights = _weights(logits, mask)
    probabilities = logits.softmax(dim=-1)
    picked = torch.zeros_like(probabilities).scatter(1, probabilities.topk(chosen, dim=-1).indices, 1.0)
    share = weights @ picked / chosen
    return logits.shape[-1] * (share * (weights @ probabilities)).sum()


def router_z(logits: Tensor, mask: Tensor | None = None) -> Tensor:
    """Compute the mean of the squared log-partition of logits ``(T, E)``, which keeps them small."""
    return _weights(logits, mask) @ logits.logsumexp(dim=-1).square()


def _weights(logits: Tensor, mask: Tensor | None) -> Tensor:
    """``(T,)`` that sum to one, zero at padding."""
    if mask is None:
        return logits.new_full((len(logits),), 1 / len(logits))
    real = mask.reshape(-1).to(logits)
    return real / real.sum().clamp(min=1)


AutoModelForCausalLM.register(MoELlamaConfig, MoELlamaForCausalLM, exist_ok=True)
