"""Make a dense Llama a mixture of experts that computes the same: sparse upcycling (arXiv 2212.05055).

Knows: files and weights. Every expert of a mixture is a copy of the feed-forward network whose place it takes, and the
weights of the chosen ones sum to one, so that the first forward pass is the dense host's.
"""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedConfig

from moai.errors import HostError
from moai.plugin_api import resolve_host
from moai_mm1.config import MoELlamaConfig
from moai_mm1.host import MoELlamaForCausalLM

STD = 0.02  # of a router's first weights


def upcycle(
    reference: str, out: Path, *, experts: int = 8, every: int = 2, chosen: int = 2, seed: int = 0
) -> MoELlamaForCausalLM:
    """Write a folder with a mixture of experts made of a dense host; any recipe takes it as ``host.reference``.

    Args:
        reference: of the dense host, as a recipe writes it.
        out: a folder that does not exist.
        experts: of a mixture.
        every: a mixture in every k-th layer.
        chosen: experts that compute a token.
        seed: of the routers' first weights.

    Raises:
        HostError: the host is no plain Llama, the numbers do not fit it, or the folder is there already.
    """
    if out.exists():
        raise HostError(f"{out} is there already; name a new folder, or remove it")
    folder = resolve_host(reference)
    kind = PreTrainedConfig.get_config_dict(folder)[0].get("model_type")
    if kind != "llama":
        raise HostError(f"'{reference}' is of type {kind}, and mm1-upcycle takes a Llama (SmolLM2, TinyLlama, ..)")
    dense = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    made = mixture_of(dense, experts=experts, every=every, chosen=chosen, seed=seed)
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix=f".{out.name}-", dir=out.parent) as aside:  # so that no half of it lies at out
        part = Path(aside) / "host"
        made.save_pretrained(part)
        AutoTokenizer.from_pretrained(folder).save_pretrained(part)
        part.rename(out)
    return made


def mixture_of(
    dense: torch.nn.Module, *, experts: int = 8, every: int = 2, chosen: int = 2, seed: int = 0
) -> MoELlamaForCausalLM:
    """Build the mixture of a loaded Llama; arguments and errors as for :func:`upcycle`."""
    layers = dense.config.num_hidden_layers
    if not 1 <= every <= layers:
        raise HostError(f"every {every} layers is none of the host's {layers}; choose from 1 to {layers}")
    if not 1 <= chosen <= experts:
        raise HostError(f"{chosen} of {experts} experts cannot be chosen; choose from 1 to {experts}")
    settings = {**dense.config.to_diff_dict(), "expert_every": every, "num_local_experts": experts}
    settings = {name: value for name, value in settings.items() if name not in ("model_type", "architectures")}
    config = MoELlamaConfig(**settings, num_experts_per_tok=chosen)
    config._attn_implementation = dense.config._attn_implementation
    with torch.device("meta"):
        made = MoELlamaForCausalLM(config)
    made.load_state_dict(_copied(dense, config, seed), assign=True)
    made.tie_weights()
    made.model.rotary_emb = dense.model.rotary_emb  # its table is computed, not saved
    made.generation_config = dense.generation_config
    return made.eval()


def _copied(dense: torch.nn.Module, config: MoELlamaConfig, seed: int) -> dict[str, torch.Tensor]:
    """The mixture's state: the dense one, each replaced network once per expert, and random routers."""
    state, generator = dict(dense.state_dict()), torch.Generator().manual_seed(seed)
    for number in config.mixture_layers():
        prefix = f"model.layers.{number}.mlp."
        own = {name: state.pop(name) for name in list(state) if name.startswith(prefix)}
        for name, tensor in own.items():
            for expert in range(config.num_local_experts):
                state[f"{prefix}experts.{expert}.{name.removeprefix(prefix)}"] = tensor.clone()
        router = torch.randn(config.num_local_experts, config.hidden_size, generator=generator) * STD
        state[f"{prefix}router.weight"] = router.to(dense.dtype)
    return state
