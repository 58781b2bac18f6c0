"""Vision-language models as hosts: their own vision tower and projector give the image tokens.

Knows: transformers' image-text-to-text models. With ``vision.reference: host`` there is no vision encoder and no
connector of ours: pixels, image sizes and whatever else the host's processor makes are handed to the host, which places
its image tokens itself; compressor and mixers are all that is added.
"""

from __future__ import annotations

import copy
import inspect

from torch import Tensor, nn
from transformers import GenerationMixin, PreTrainedConfig

from moai.compat import takes_cache
from moai.errors import HostError
from moai.model.config import MoaiConfig
from moai.model.generation import PREFILL_ONLY, without_read

HOST = "host"  # the value of ``vision.reference`` that says so
TOKEN_NAMES = ("image_token_id", "image_token_index")
AROUND = (("vision_start_token_id", "vision_end_token_id"), ("image_start_token_id", "image_end_token_id"))
TYPES = "mm_token_type_ids"  # which tokens are images; some hosts number positions by it


class Unseeing(nn.Module):
    """Stands where a vision encoder and a connector would stand; has no weights and is never to be run."""

    width = 0

    def forward(self, *_):
        """Always an error: the host sees for itself.

        Raises:
            HostError: always; it names the recipe key.
        """
        raise HostError(
            "the host sees images with its own vision tower, so there is no encoder for panoptic maps; "
            "set perception.panoptic_map: false"
        )


def sees(config) -> bool:
    """True when a :class:`MoaiConfig` says that the host's own vision half gives the image tokens."""
    return (config.vision or {}).get("reference") == HOST


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
        "set vision.reference to an encoder"
    )


def host_placeholder(config: PreTrainedConfig, tokenizer, image_token: str) -> str:
    """What stands for an image in a prompt: the image token, between the tokens that the host has around images."""
    for names in AROUND:
        ids = [getattr(config, name, None) for name in names]
        if all(isinstance(number, int) for number in ids):
            return image_token.join(tokenizer.convert_ids_to_tokens(ids))
    return image_token


def seeing_config(
    host, mixer=None, compressor=None, reference=None, *, revision=None, quantization=None, **settings
) -> MoaiConfig:
    """The configuration of a model around a loaded vision-language host; see ``MoaiForConditionalGeneration.around``.

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
        from moai.model.host.loading import host_hashes  # it imports this module

        frozen["sha256"] = host_hashes(reference, revision)
    if quantization is not None:
        frozen["quantization"] = quantization
    return MoaiConfig(
        text_config=copy.deepcopy(host.config),
        host=frozen,
        vision={"reference": HOST},
        compressor=dict(compressor or {}),
        mixer=dict(mixer or {}),
        image_token_id=host_image_token(host.config),
        **settings,
    )


class SeeingHostGeneration(GenerationMixin):
    """``generate`` for both kinds of host; what only a seeing host needs is left to its own methods."""

    def _encode(self, input_ids: Tensor, kwargs: dict) -> None:
        if not sees(self.config):
            return super()._encode(input_ids, kwargs)
        pixels = kwargs.pop("pixel_values", None)  # the host's, encoded further on; ours would go through a connector
        super()._encode(input_ids, kwargs)
        if pixels is not None:
            kwargs["pixel_values"] = pixels
        kwargs.update(self._typed(input_ids, kwargs))

    def _typed(self, input_ids: Tensor | None, given: dict) -> dict:
        """Which tokens are images, for a host that wants to know, where nobody has said so.

        Without it Qwen's positions would be those of text, and nothing would say that they are wrong.
        """
        if input_ids is None or given.get(TYPES) is not None:
            return {}
        wanted = TYPES in inspect.signature(self.host.forward).parameters
        return {TYPES: (input_ids == self.config.image_token_id).long()} if wanted else {}

    @takes_cache
    def prepare_inputs_for_generation(
        self, input_ids, cache=None, inputs_embeds=None, is_first_iteration=False, **kwargs
    ):
        """As the host prepares its inputs, with the perception at prefill only."""
        if not sees(self.config):
            return super().prepare_inputs_for_generation(
                input_ids,
                cache=cache,
                inputs_embeds=inputs_embeds,
                is_first_iteration=is_first_iteration,
                **kwargs,
            )
        model_inputs = self.host.prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **{self.host_cache: cache},
            **kwargs,
        )
        return without_read(model_inputs, cache, is_first_iteration)

    def _prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs):
        if not sees(self.config):
            return super()._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)
        return self.host._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        if not sees(self.config):
            return super()._validate_model_kwargs(model_kwargs)
        self.host._validate_model_kwargs({k: v for k, v in model_kwargs.items() if k not in PREFILL_ONLY})

    def _supports_mm_encoder_outputs(self) -> bool:
        return sees(self.config) and self.host._supports_mm_encoder_outputs()
