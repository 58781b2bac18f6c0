"""What ``generate`` needs to know: images and perceptions are encoded once, and mixed at prefill only.

Knows: transformers' generation loop. Everything that a prompt brings along is a tensor with the batch in front, so
that beams and several return sequences expand it with the prompt.
"""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import GenerationMixin

from moai.errors import PromptError

PREFILL_ONLY = ("image_features", "aux_states", "aux_states_mask", "prompt_mask")


class PromptGeneration(GenerationMixin):
    """Generation for a model with ``encode_images`` and ``encode_aux``."""

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, **kwargs):
        """transformers' ``generate``, with images and perceptions encoded once for all beams and steps.

        Raises:
            PromptError: chunked prefill or a plain assistant model, which cannot be exact here; or a prompt that
                does not leave room in the host's context.
        """
        self._refuse(kwargs)
        self._suppress_placeholder(kwargs)
        input_ids = kwargs.get("input_ids", inputs)
        if input_ids is not None:
            self._check_length(input_ids, kwargs)
            self._encode(input_ids, kwargs)
        return super().generate(inputs, **kwargs)

    def _encode(self, input_ids: Tensor, kwargs: dict) -> None:
        if kwargs.get("prompt_mask") is None:
            attention = kwargs.get("attention_mask")
            kwargs["prompt_mask"] = torch.ones_like(input_ids).bool() if attention is None else attention.bool()
        if kwargs.get("pixel_values") is not None:
            kwargs["image_features"] = self.encode_images(kwargs.pop("pixel_values"), input_ids)
        aux = [
            kwargs.pop(f"aux_{name}", None) for name in ("input_ids", "attention_mask", "pixel_values", "pixel_mask")
        ]
        if aux[0] is not None:
            kwargs["aux_states"], kwargs["aux_states_mask"] = self.encode_aux(*aux)

    def _refuse(self, kwargs: dict) -> None:
        config = kwargs.get("generation_config") or self.generation_config
        if kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None):
            raise PromptError(
                "prefill_chunk_size cannot be exact: prompt tokens read each other in the mixers; leave it out"
            )
        assistant = kwargs.get("assistant_model")
        if assistant is not None and not isinstance(assistant, type(self)):
            raise PromptError(
                f"a plain {type(assistant).__name__} cannot assist: it does not see the image; "
                "use prompt_lookup_num_tokens, or an assistant that moai loaded"
            )

    def _suppress_placeholder(self, kwargs: dict) -> None:
        # It would stand for no image, and steps with and without a cache would embed it differently.
        config = kwargs.get("generation_config") or self.generation_config
        given = kwargs.get("suppress_tokens") or getattr(config, "suppress_tokens", None) or []
        kwargs["suppress_tokens"] = [*given, self.config.image_token_id]

    def _check_length(self, input_ids: Tensor, kwargs: dict) -> None:
        limit = getattr(self.config.get_text_config(), "max_position_embeddings", None)
        if limit is not None and input_ids.shape[1] >= limit:
            raise PromptError(
                f"the prompt has {input_ids.shape[1]} tokens and the host's context holds {limit}; "
                "shorten the question or use fewer images"
            )

    def prepare_inputs_for_generation(self, input_ids, inputs_embeds=None, is_first_iteration=False, **kwargs):
        """Drop what only the prefill needs, unless there is no cache and every step is a prefill."""
        model_inputs = super().prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **kwargs
        )
        if not is_first_iteration and kwargs.get("use_cache", True):
            for name in PREFILL_ONLY:
                model_inputs.pop(name, None)
        return model_inputs
