"""Vision-language models as hosts: their own vision tower and projector give the image tokens.

Knows: configurations of transformers' image-text-to-text models. With ``vision: {kind: host}`` there is no vision
encoder and no connector of ours: pixels, image sizes and whatever else the host's processor makes are handed to the
host, which places its image tokens itself; compressor and mixers are all that is added.
"""

from __future__ import annotations

import copy
import inspect
from typing import Any

from torch import nn
from transformers import PreTrainedConfig

from moai.errors import HostError
from moai.model.config import MoaiConfig
from moai.model.host.loading import host_hashes

TOKEN_NAMES = ("image_token_id", "image_token_index")
AROUND = (("vision_start_token_id", "vision_end_token_id"), ("image_start_token_id", "image_end_token_id"))


def host_image_token(config: PreTrainedConfig) -> int:
    """The id of the placeholder that a vision-language model's processor puts where an image stands.

    Raises:
        HostError: the configuration names none; it names the class.
    """
    for name in TOKEN_NAMES:
        token = getattr(config, name, None)
        if isinstance(token, int):
            return token
    raise HostError(
        f"{type(config).__name__} names no image token, so the host is no vision-language model; "
        "set vision.kind to encoder, and name one"
    )


def host_placeholder(config: PreTrainedConfig, tokenizer, image_token: str) -> str:
    """What stands for an image in a prompt: the image token, between the tokens that the host has around images."""
    for names in AROUND:
        ids = [getattr(config, name, None) for name in names]
        if all(isinstance(number, int) for number in ids):
            return image_token.join(tokenizer.convert_ids_to_tokens(ids))
    return image_token


def host_vision_config(
    host: nn.Module,
    mixer: dict[str, Any] | None = None,
    compressor: dict[str, Any] | None = None,
    reference: str | None = None,
    *,
    revision: str | None = None,
    quantization: str | None = None,
    **settings: Any,
) -> MoaiConfig:
    """Configure a model around a loaded vision-language host.

    Args:
        host: a model of ``AutoModelForImageTextToText``.
        mixer, compressor: as in :class:`MoaiConfig`; what is left out has its default.
        reference: where the host came from: a path or hub id. Without it the model can be used, but not saved.
        revision, quantization: of the host.
        settings: further fields of :class:`MoaiConfig`.

    Raises:
        HostError: no image token is known, or the host reads a prompt in both directions.
    """
    if "token_type_ids" in inspect.signature(host.forward).parameters:
        # PaliGemma, Gemma 3: by it they tell the prompt, which all of it may read, from the answer. Without it nothing
        # is told apart, and an answer reads itself while it is learnt.
        raise HostError(
            f"{type(host).__name__} reads prompts in both directions (by token_type_ids), which moai does not give it; "
            "use a host that reads from left to right, such as LLaVA or Qwen2.5-VL"
        )
    frozen = {"reference": reference, "revision": revision, "dtype": str(host.dtype).removeprefix("torch.")}
    if reference is not None:
        frozen["sha256"] = host_hashes(reference, revision)
    if quantization is not None:
        frozen["quantization"] = quantization
    return MoaiConfig(
        text_config=copy.deepcopy(host.config),
        host=frozen,
        vision={"kind": "host"},
        compressor=dict(compressor or {}),
        mixer=dict(mixer or {}),
        image_token_id=host_image_token(host.config),
        **settings,
    )
