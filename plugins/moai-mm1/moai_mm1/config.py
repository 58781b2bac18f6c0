"""Configure a Llama with a mixture of experts; apart from its model, so that reading it loads no layers."""

from __future__ import annotations

from transformers import AutoConfig, LlamaConfig


class MoELlamaConfig(LlamaConfig):
    """Configure a Llama whose every k-th feed-forward network is a mixture of experts.

    Attributes:
        expert_every: a mixture in every k-th layer, from the k-th on; MM1-3B-MoE has 2, MM1-7B-MoE 4.
        num_local_experts: in each mixture; MM1-3B-MoE has 64, MM1-7B-MoE 32.
        num_experts_per_tok: that compute a token.
        router_aux_loss_coef: weight of the load-balance loss in training.
        router_z_loss_coef: weight of the router z-loss in training.
        output_router_logits: whether a forward returns the routers' logits and loss.
    """

    model_type = "mm1_moe_llama"
    expert_every: int = 2
    num_local_experts: int = 8
    num_experts_per_tok: int = 2
    router_aux_loss_coef: float = 0.01
    router_z_loss_coef: float = 0.001
    output_router_logits: bool = False

    def mixture_layers(self) -> list[int]:
        """Number the layers with a mixture, from 0."""
        return list(range(self.expert_every - 1, self.num_hidden_layers, self.expert_every))


AutoConfig.register(MoELlamaConfig.model_type, MoELlamaConfig, exist_ok=True)
