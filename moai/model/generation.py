"""What ``generate`` needs to know: images and perceptions are encoded once, and mixed at prefill only.

Knows: transformers' generation loop. Everything that a prompt brings along is a tensor with the batch in front, so
that beams and several return sequences expand it with the prompt.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import GenerationMixin

from moai.compat import CACHE, take_cache, takes_cache
from moai.errors import PromptError

if TYPE_CHECKING:
    from transformers.generation.utils import GenerateOutput

    Output = GenerateOutput | torch.LongTensor

PREFILL_ONLY = ("image_features", "aux_states", "aux_states_mask", "aux_said", "prompt_mask")
AUXILIARY = ("aux_input_ids", "aux_attention_mask", "aux_pixel_values", "aux_pixel_mask")


class PromptGeneration(GenerationMixin):
    """Generation for a model with ``encode_images`` and ``encode_aux``."""

    _assisting: dict[str, Tensor] = {}  # what the assistant of the running ``generate`` is to be given instead of ours

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *, return_attribution: bool = False, **kwargs: Any) -> Output:
        """transformers' ``generate``, with images and perceptions encoded once for all beams and steps.

        Args:
            inputs: ``input_ids``, if they are not given by name.
            return_attribution: put ``moai.model.analysis.attribution.Attribution`` of the prompts, before any beams,
                into the output; the prompts are read once more for it. Needs ``return_dict_in_generate``.
            kwargs: what ``forward`` and ``generate`` take. With the ``cache`` of an earlier turn (also called
                ``past_key_values``), ``input_ids`` are the whole conversation. What comes after the cache is read and
                mixed; of ``pixel_values`` only the images there are encoded.

        Raises:
            PromptError: chunked prefill or a plain assistant model, which cannot be exact here; a prompt that does
                not leave room in the host's context; or an attribution that has no output to stand in.
        """
        cache = take_cache(kwargs)
        if cache is not None:
            kwargs[CACHE] = cache
        self._refuse(kwargs)
        self._suppress_placeholder(kwargs)
        input_ids = kwargs.get("input_ids", inputs)
        attribution = self._attribution(input_ids, kwargs) if return_attribution else None
        if input_ids is not None:
            self._check_length(input_ids, kwargs)
            self._assisting = _as_seen_by(kwargs.get("assistant_model"), input_ids, kwargs)
            self._encode(input_ids, kwargs)
        try:
            output = super().generate(inputs, **kwargs)
        finally:
            self._assisting = {}
        if attribution is not None:
            output.attribution = attribution
        return output

    def _attribution(self, input_ids: Tensor, kwargs: dict):
        config = kwargs.get("generation_config") or self.generation_config
        if not kwargs.get("return_dict_in_generate", getattr(config, "return_dict_in_generate", False)):
            raise PromptError("return_attribution needs an output to stand in; pass return_dict_in_generate=True too")
        if kwargs.get(CACHE) is not None:
            raise PromptError(f"return_attribution looks at a whole prompt; leave {CACHE} out")
        tensors = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        prompt = {**tensors, "input_ids": input_ids, "use_cache": False, "logits_to_keep": 1}
        return self(**prompt, return_attribution=True).attribution

    def _encode(self, input_ids: Tensor, kwargs: dict) -> None:
        past = kwargs.get(CACHE)
        seen = 0 if past is None else int(past.get_seq_length())
        if kwargs.get("prompt_mask") is None:
            attention = kwargs.get("attention_mask")
            kwargs["prompt_mask"] = torch.ones_like(input_ids).bool() if attention is None else attention.bool()
        if kwargs.get("pixel_values") is not None:
            pixels = _behind(kwargs.pop("pixel_values"), input_ids == self.config.image_token_id, seen, self.config)
            kwargs["image_features"] = self.encode_images(pixels, input_ids[:, seen:]) if len(pixels) else None
        aux = [kwargs.pop(name, None) for name in AUXILIARY]
        if aux[0] is not None:
            kwargs["aux_states"], kwargs["aux_states_mask"] = self.encode_aux(*aux)
            kwargs["aux_said"] = self.aux_said(aux[0], aux[1], aux[3]) if self.copies else None

    def _refuse(self, kwargs: dict) -> None:
        config = kwargs.get("generation_config") or self.generation_config
        if kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None):
            raise PromptError(
                "prefill_chunk_size cannot be exact: prompt tokens read each other in the mixers; leave it out"
            )
        if kwargs.get("assistant_early_exit") or getattr(config, "assistant_early_exit", None):
            raise PromptError("assistant_early_exit would leave mixers out; use prompt_lookup_num_tokens")
        assistant = kwargs.get("assistant_model")
        if assistant is not None and not isinstance(assistant, type(self)):
            raise PromptError(
                f"a plain {type(assistant).__name__} cannot assist: it does not see the image; "
                "use prompt_lookup_num_tokens, or an assistant that moai loaded"
            )

    def _get_candidate_generator(self, *args, **kwargs):
        generator = super()._get_candidate_generator(*args, **kwargs)
        if self._assisting:
            kept = {name: value for name, value in generator.assistant_kwargs.items() if name not in PREFILL_ONLY}
            generator.assistant_kwargs = {**kept, **self._assisting}
        return generator

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

    @takes_cache
    def prepare_inputs_for_generation(
        self, input_ids, inputs_embeds=None, is_first_iteration=False, cache=None, **kwargs
    ):
        """Drop what only the prefill needs, unless there is no cache and every step is a prefill."""
        model_inputs = super().prepare_inputs_for_generation(
            input_ids,
            inputs_embeds=inputs_embeds,
            is_first_iteration=is_first_iteration,
            **{CACHE: cache},
            **kwargs,
        )
        return without_read(model_inputs, cache, is_first_iteration)


def without_read(model_inputs: dict, past, is_first_iteration: bool) -> dict:
    """The inputs of one step; what only the prefill needs is taken out when the cache holds the prompt."""
    if not is_first_iteration and is_read(past):
        for name in PREFILL_ONLY:
            model_inputs.pop(name, None)
    return model_inputs


def is_read(past) -> bool:
    """True when a cache holds the prompt. An assistant's first iteration is not called one, and its cache is empty."""
    return past is not None and bool(past.get_seq_length())


def _as_seen_by(assistant, input_ids: Tensor, kwargs: dict) -> dict[str, Tensor]:
    """Images and perceptions as an assistant's own encoders give them: its width may be another, its training is."""
    if assistant is None:
        return {}
    names = ("attention_mask", "prompt_mask", "pixel_values", *AUXILIARY)
    given = {name: kwargs[name].to(assistant.device) for name in names if kwargs.get(name) is not None}
    assistant._encode(input_ids.to(assistant.device), given)
    return {name: given[name] for name in PREFILL_ONLY if given.get(name) is not None}


def _behind(pixels: Tensor, is_image: Tensor, seen: int, config) -> Tensor:
    """Those of the images whose placeholders stand behind the ``seen`` tokens of the cache."""
    starts = is_image.nonzero()[:: config.image_tokens, 1]  # one column per image, row by row
    if not seen or len(starts) != len(pixels):  # another number: a mistake, or already only those behind
        return pixels
    return pixels[starts >= seen]
