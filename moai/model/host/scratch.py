"""Hosts that start from random weights, of a configuration in the recipe and with another model's tokenizer.

Knows: configurations and Auto classes of transformers. A run folder holds all weights of such a host.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import CONFIG_MAPPING, AutoConfig, PreTrainedConfig
from transformers.initialization import no_init_weights

from moai.assets.host import resolve_host
from moai.assets.resolver import resolve
from moai.compat import has_model
from moai.errors import AssetError, HostError, nearest
from moai.model.config import import_host

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

TOKENS = ("bos_token_id", "eos_token_id", "pad_token_id")


def scratch_config(settings: Mapping[str, Any]) -> PreTrainedConfig:
    """Build the configuration that ``host.scratch`` of a recipe describes.

    Args:
        settings: ``model_type``, and keys of its configuration.

    Raises:
        HostError: an unknown type or key, one that is no causal language model, or sizes that do not fit each other.
    """
    from transformers import AutoModelForCausalLM  # here: this import runs our own registration, which needs this file

    given = dict(settings)
    kind = given.pop("model_type", None)
    if not isinstance(kind, str):
        raise HostError("host.scratch needs model_type, the kind of decoder, such as llama or moai_kosmos")
    import_host(kind)
    if kind not in CONFIG_MAPPING:
        raise HostError(f"host.scratch.model_type '{kind}' is unknown{nearest(kind, CONFIG_MAPPING)}")
    known = AutoConfig.for_model(kind).to_dict()
    for key in given:
        if key not in known:
            raise HostError(f"host.scratch: {kind} has no '{key}'{nearest(key, known)}")
    try:
        config = AutoConfig.for_model(kind, **given)
    except Exception as error:  # each family checks its own configuration, by errors of its own
        raise HostError(f"host.scratch does not fit {kind}: {' '.join(str(error).split())}") from error
    if not has_model(AutoModelForCausalLM, config):
        raise HostError(f"host.scratch.model_type '{kind}' is no causal language model; use one, such as llama")
    return config


def scratch_tokenizer(reference: str, revision: str | None = None) -> PreTrainedTokenizerBase:
    """Load the tokenizer of such a host; of a hub id the tokenizer's files alone are downloaded.

    Raises:
        AssetError: there is none.
    """
    from transformers import AutoTokenizer

    here = Path(reference).expanduser().exists() or ":" in reference
    try:
        return AutoTokenizer.from_pretrained(_folder(reference) if here else reference, revision=revision)
    except (OSError, ValueError) as error:
        said = " ".join(str(error).split())
        raise AssetError(
            f"host.reference '{reference}' gives no tokenizer ({said}); name a model that has one"
        ) from None


def _folder(reference: str) -> Path:
    path = resolve(reference)
    return path if path.is_dir() and any(path.glob("tokenizer*")) else resolve_host(reference)


def scratch_host(
    settings: Mapping[str, Any],
    tokenizer: PreTrainedTokenizerBase,
    dtype: torch.dtype,
    *,
    seed: int,
    attn_implementation: str | None = None,
) -> PreTrainedModel:
    """Build a host with the first weights that ``seed`` draws.

    Raises:
        HostError: as :func:`scratch_config`, or a vocabulary smaller than the tokenizer's.
    """
    from transformers import AutoModelForCausalLM

    config = scratch_config(settings)
    for name in TOKENS:
        if name not in settings:
            setattr(config, name, getattr(tokenizer, name))
    size = config.get_text_config().vocab_size
    if size < len(tokenizer):
        raise HostError(
            f"host.scratch.vocab_size is {size}, and the tokenizer has {len(tokenizer)} tokens; raise it to that"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config, dtype=dtype, attn_implementation=attn_implementation)


def empty_host(config: PreTrainedConfig, dtype: torch.dtype, **kwargs: Any) -> PreTrainedModel:
    """Build a host whose saved weights come next; its first ones are not drawn."""
    from transformers import AutoModelForCausalLM

    with no_init_weights():
        host = AutoModelForCausalLM.from_config(copy.deepcopy(config), dtype=dtype, **kwargs)
    host.tie_weights()  # which comes with the first weights otherwise
    return host
