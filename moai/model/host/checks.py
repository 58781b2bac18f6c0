"""Which models can be hosts, and how each of them scales what is embedded.

Knows: transformers' causal language models: their configurations and decoder layers, and how they run on one token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from transformers import PreTrainedConfig

from moai.compat import cache_names, cache_of, has_model
from moai.errors import HostError
from moai.model.arguments import takes
from moai.model.host.layers import attention_of, decoder_layers

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


def check_vision(config: PreTrainedConfig, name: str, own_vision: bool) -> None:
    """Refuse, by its configuration alone, a host without vision where its own is wanted, or the other way round.

    Raises:
        HostError: names ``vision.kind``.
    """
    # Imported here: this import runs our own registration, which needs this module whole.
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    known = has_model(AutoModelForImageTextToText, config)
    if own_vision and not known:
        raise HostError(
            f"{name} ({config.model_type}) is no vision-language model; set vision.kind to encoder, and name one"
        )
    if known and not own_vision and not has_model(AutoModelForCausalLM, config):
        raise HostError(
            f"{name} ({config.model_type}) is a vision-language model; set vision: {{kind: host}} to use its own vision"
        )


def check_host(host: nn.Module) -> None:
    """Refuse a loaded model that cannot be a host; :func:`cache_keyword` refuses what has to be run to be known.

    Raises:
        HostError: an encoder-decoder, a state-space or recurrent model, or one whose words are narrower than its
            layers; the message names the class.
    """
    name = type(host).__name__
    check_configuration(host.config, name)
    if all(attention_of(layer) is None for layer in decoder_layers(host)):
        raise HostError(f"{name} has no attention in any layer (a state-space or recurrent model); {ADVICE}")
    embedded, width = host.get_input_embeddings().embedding_dim, host.config.get_text_config().hidden_size
    if embedded != width:
        raise HostError(f"{name} embeds words in {embedded} dimensions and decodes in {width}; use a host of one width")


_CACHE_KEYWORDS: dict[tuple[type, type, str], str] = {}  # of hosts that were run: class, class inside, configuration


def cache_keyword(host: nn.Module) -> str:
    """Run a host on two words, one after the other, and find the argument in which it takes its key-value cache.

    What a forward declares says little: transformers renamed the argument, remote code keeps the old name, and a name
    can be declared and ignored. A cache that holds two words afterwards was read and written. A process runs only the
    first of several hosts with one class and one configuration.

    Raises:
        HostError: the host returns no cache, or does not go on from the one that it returned.
    """
    inner = host.get_base_model() if hasattr(host, "get_base_model") else host  # what an adapter of peft is around
    key = (type(host), type(inner), host.config.to_json_string(use_diff=False))
    own = any("forward" in vars(part) for part in (host, inner))  # replaced on the object: its class says nothing
    if own:
        return _tried_keyword(host, inner)
    if key not in _CACHE_KEYWORDS:
        _CACHE_KEYWORDS[key] = _tried_keyword(host, inner)
    return _CACHE_KEYWORDS[key]


@torch.no_grad()
def _tried_keyword(host: nn.Module, inner: nn.Module) -> str:
    name = type(host).__name__
    image = {getattr(host.config, key, None) for key in ("image_token_id", "image_token_index")}
    first = next(number for number in range(len(image) + 1) if number not in image)
    word = torch.tensor([[first]], device=host.get_input_embeddings().weight.device)
    taken = takes(inner)

    def cached_words(position: int, **given) -> tuple[object, int]:
        # Qwen counts on from the prompt that it read last where no position is given. Without a mask, which is looked
        # into, a host on "meta" runs as well.
        optional = {"use_cache": True, "position_ids": torch.full_like(word, position)}
        given |= {key: value for key, value in optional.items() if key in taken}
        cache = cache_of(host(input_ids=word, **given))
        return cache, int(cache.get_seq_length()) if hasattr(cache, "get_seq_length") else 0

    refusal: TypeError | None = None
    with _evaluating(host):
        for keyword in cache_names(inner.forward):
            cache, length = cached_words(0)
            if length != 1:
                raise HostError(
                    f"{name} keeps no key-value cache (a recurrent or early model) and cannot be a host; {ADVICE}"
                )
            try:
                if cached_words(1, **{keyword: cache})[1] == 2:
                    return keyword
            except TypeError as error:  # an argument that it does not have; the other name may be the one
                refusal = error
    raise HostError(f"{name} does not go on from its key-value cache and cannot be a host; {ADVICE}") from refusal


@contextmanager
def _evaluating(host: nn.Module) -> Iterator[None]:
    """Evaluation mode for every module, and afterwards the mode that each was in: no dropout draws a number."""
    training = [module for module in host.modules() if module.training]
    for module in training:
        module.training = False
    try:
        yield
    finally:
        for module in training:
            module.training = True


def embedding_factors(host: nn.Module) -> tuple[float, float]:
    """What to multiply words by before they are handed to the host, and what the host multiplies all it is handed by.

    Both are 1 for most families. Gemma and its kin scale inside the embedding module, which needs nothing here.
    """
    config = host.config.get_text_config()
    factor = float(getattr(config, "embedding_multiplier", None) or 1.0)
    if config.model_type == "ctrl":
        factor = config.hidden_size**0.5
    return (factor, 1.0) if config.model_type in SCALED_BEHIND_THE_TABLE else (1.0, factor)
