"""Which models can be hosts, and how each of them scales what is embedded.

Knows: transformers' causal language models: their configurations, forward signatures and decoder layers.
"""

from __future__ import annotations

import inspect

from torch import nn
from transformers import PreTrainedConfig

from moai.errors import HostError
from moai.model.graft import attention_of, decoder_layers

ADVICE = "use a decoder-only language model with attention layers"
# These multiply words behind their embedding, and only words: handed embeddings in their place, they leave them as is.
SCALED_BEHIND_THE_TABLE = ("falcon_h1",)


def check_configuration(config: PreTrainedConfig, name: str) -> None:
    """Refuse, by its configuration alone, what cannot be a host.

    Raises:
        HostError: an encoder-decoder.
    """
    if getattr(config, "is_encoder_decoder", False):
        raise HostError(f"{name} ({config.model_type}) is an encoder-decoder and cannot be a host; {ADVICE}")


def check_eyes(config: PreTrainedConfig, name: str, seeing: bool) -> None:
    """Refuse, by its configuration alone, a host that was to see for itself and cannot, or that cannot but see.

    Raises:
        HostError: names ``host.sees``.
    """
    # Imported here: this import runs our own registration, which needs this module whole.
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    known = type(config) in AutoModelForImageTextToText._model_mapping
    if seeing and not known:
        raise HostError(
            f"{name} ({config.model_type}) is no vision-language model; name an encoder in vision, without host.sees"
        )
    if known and not seeing and type(config) not in AutoModelForCausalLM._model_mapping:
        raise HostError(
            f"{name} ({config.model_type}) is a vision-language model; set host.sees: true, and leave vision out"
        )


def check_host(host: nn.Module) -> None:
    """Refuse a loaded model that cannot be a host.

    Raises:
        HostError: an encoder-decoder, a state-space or recurrent model, one without a key-value cache, or one whose
            words are narrower than its layers; the message names the class.
    """
    name = type(host).__name__
    check_configuration(host.config, name)
    model = host.get_base_model() if hasattr(host, "get_base_model") else host
    if all(attention_of(layer) is None for layer in decoder_layers(host)):
        raise HostError(f"{name} has no attention in any layer (a state-space or recurrent model); {ADVICE}")
    if "past_key_values" not in inspect.signature(model.forward).parameters:
        raise HostError(f"{name} keeps no key-value cache (a recurrent or early model) and cannot be a host; {ADVICE}")
    embedded, width = host.get_input_embeddings().embedding_dim, host.config.get_text_config().hidden_size
    if embedded != width:
        raise HostError(f"{name} embeds words in {embedded} dimensions and decodes in {width}; use a host of one width")


def embedding_factors(host: nn.Module) -> tuple[float, float]:
    """What to multiply words by before they are handed to the host, and what the host multiplies all it is handed by.

    Both are 1 for most families. Gemma and its kin scale inside the embedding module, which needs nothing here.
    """
    config = host.config.get_text_config()
    factor = float(getattr(config, "embedding_multiplier", None) or 1.0)
    if config.model_type == "ctrl":
        factor = config.hidden_size**0.5
    return (factor, 1.0) if config.model_type in SCALED_BEHIND_THE_TABLE else (1.0, factor)
