"""Generation: images and perceptions are encoded once; prompts are mixed at prefill, answers where mixers read on.

Knows: transformers' generation loop. Everything that a prompt brings along is a tensor with the batch in front, so
that beams and several return sequences expand it with the prompt.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import GenerationMixin

from moai.compat import CACHE, take_cache, takes_cache
from moai.errors import PromptError
from moai.model.mixer.graft import half_precision
from moai.model.mixer.inputs import Auxiliary, last_segment

if TYPE_CHECKING:
    from transformers.generation.utils import GenerateOutput

    Output = GenerateOutput | torch.LongTensor

PREFILL_ONLY = ("image_features", "aux", "prompt_mask")  # the second where answer tokens read nothing of it
AUXILIARY = ("aux_input_ids", "aux_attention_mask", "aux_pixel_values", "aux_pixel_mask", "aux_words")
# What the assistant of the ``generate`` that runs in this thread is given instead of the model's own encodings.
_ASSISTED: ContextVar[dict[str, Tensor] | None] = ContextVar("moai_assisted", default=None)


class Generation(GenerationMixin):
    """transformers' generation for a model with ``images`` (an image input) and ``auxiliary`` (an encoder)."""

    @torch.no_grad()
    def generate(self, inputs: Tensor | None = None, *, return_attribution: bool = False, **kwargs: Any) -> Output:
        """Generate as transformers does, with images and perceptions encoded once for all beams and steps.

        Args:
            inputs: ``input_ids``, if they are not given by name.
            return_attribution: put ``moai.model.analysis.attribution.Attribution`` of the prompts, before any beams,
                into the output; the prompts are run once more for it. Needs ``return_dict_in_generate``.
            kwargs: what ``forward`` and ``generate`` take. With the ``cache`` of an earlier turn (also called
                ``past_key_values``), ``input_ids`` are the whole conversation. What comes after the cache is run and
                mixed; of ``pixel_values`` only the images there are encoded.

        Raises:
            PromptError: chunked prefill or a plain assistant model, which cannot be exact here; placeholders without
                images; a prompt that does not leave room in the host's context; or an attribution without an output.
        """
        cache = take_cache(kwargs)
        if cache is not None:
            kwargs[CACHE] = cache
        self._refuse(kwargs)
        self._suppress_placeholder(kwargs)
        input_ids = kwargs.get("input_ids", inputs)
        attribution = self._attribution(input_ids, kwargs) if return_attribution else None
        assisted = None
        if input_ids is not None:
            self._check_length(input_ids, kwargs)
            assisted = _encoded_by(kwargs.get("assistant_model"), input_ids, kwargs)
            self._encode(input_ids, kwargs)
        token = _ASSISTED.set(assisted)
        try:
            output = super().generate(inputs, **kwargs)
        finally:
            _ASSISTED.reset(token)
        if attribution is not None:
            output.attribution = attribution
        return output

    def _attribution(self, input_ids: Tensor, kwargs: dict):
        config = kwargs.get("generation_config") or self.generation_config
        if not kwargs.get("return_dict_in_generate", getattr(config, "return_dict_in_generate", False)):
            raise PromptError("return_attribution needs an output to stand in; pass return_dict_in_generate=True too")
        if kwargs.get(CACHE) is not None:
            raise PromptError(f"return_attribution analyses a whole prompt; leave {CACHE} out")
        tensors = {name: value for name, value in kwargs.items() if isinstance(value, Tensor)}
        prompt = {**tensors, "input_ids": input_ids, "use_cache": False, "logits_to_keep": 1}
        return self(**prompt, return_attribution=True).attribution

    def _encode(self, input_ids: Tensor, kwargs: dict) -> None:
        past = kwargs.get(CACHE)
        cached = 0 if past is None else int(past.get_seq_length())
        if kwargs.get("prompt_mask") is None:
            attention = kwargs.get("attention_mask")
            kwargs["prompt_mask"] = torch.ones_like(input_ids).bool() if attention is None else attention.bool()
        self.images.encode_once(input_ids, cached, kwargs)
        words = [kwargs.pop(name, None) for name in AUXILIARY]
        if words[0] is not None and len(self.mixers):
            kwargs["aux"] = self.auxiliary.encode(*words)
        aux = kwargs.get("aux")
        if self.answers and self.mixed and aux is not None and aux.prompt_mask is None:
            kwargs["aux"] = self._for_answers(aux, input_ids, kwargs["prompt_mask"], cached)

    def _for_answers(self, aux: Auxiliary, input_ids: Tensor, prompt_mask: Tensor, cached: int) -> Auxiliary:
        """Compute once what all tokens of an answer read."""
        prompt = F.pad(prompt_mask.bool(), (0, input_ids.shape[1] - prompt_mask.shape[1]))
        question = earlier = None
        if self.pools:
            words = input_ids != self.config.image_token_id
            read = torch.arange(prompt.shape[1], device=prompt.device) < cached
            asked, before = (last_segment(part, prompt) & words for part in (prompt, prompt & read))
            question, earlier = (self.auxiliary.question_embedding(input_ids, part) for part in (asked, before))
            if self.auxiliary.matches:
                found = [self.auxiliary.find_matches(input_ids, part, aux.starts) for part in (asked, before)]
                aux = aux._replace(matches=found[0], earlier_matches=found[1])
        with half_precision(self.get_input_embeddings().weight):
            states = aux.states.to(self.get_input_embeddings().weight.dtype)
            given = (states, aux.mask, aux.sources, aux.following, aux.matches)
            caches = tuple(mixer.answer_cache(*given) for mixer in self.mixers.values())
        return aux._replace(caches=caches, question=question, earlier_question=earlier, prompt_mask=prompt)

    def _refuse(self, kwargs: dict) -> None:
        config = kwargs.get("generation_config") or self.generation_config
        if kwargs.get("prefill_chunk_size") or getattr(config, "prefill_chunk_size", None):
            raise PromptError(
                "prefill_chunk_size cannot be exact: prompt tokens attend to each other in the mixers; leave it out"
            )
        if kwargs.get("assistant_early_exit") or getattr(config, "assistant_early_exit", None):
            raise PromptError("assistant_early_exit would leave mixers out; use prompt_lookup_num_tokens")
        assistant = kwargs.get("assistant_model")
        if assistant is not None and not isinstance(assistant, type(self)):
            raise PromptError(
                f"a plain {type(assistant).__name__} cannot assist: it takes no images; "
                "use prompt_lookup_num_tokens, or an assistant that moai loaded"
            )

    def _get_candidate_generator(self, *args, **kwargs):
        generator = super()._get_candidate_generator(*args, **kwargs)
        assisted = _ASSISTED.get()
        if assisted:
            own = {name: value for name, value in generator.assistant_kwargs.items() if name not in PREFILL_ONLY}
            generator.assistant_kwargs = {**own, **assisted}
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
        """Prepare one step; what only the prefill needs is left out once the cache holds the prompt."""
        preparing = self.images.generating(super())
        name = CACHE if preparing is not self.host else self.host_cache
        made = preparing.prepare_inputs_for_generation(
            input_ids, inputs_embeds=inputs_embeds, is_first_iteration=is_first_iteration, **{name: cache}, **kwargs
        )
        if not is_first_iteration and holds_prompt(cache):
            for left_out in PREFILL_ONLY:
                if left_out != "aux" or not self.answers:
                    made.pop(left_out, None)
        aux = made.get("aux")
        if aux is not None and aux.prompt_mask is not None and holds_prompt(cache):
            made["aux"] = aux.at_window(input_ids, made["input_ids"].shape[1])
        return made

    def _expand_inputs_for_generation(self, expand_size=1, is_encoder_decoder=False, input_ids=None, **kwargs):
        aux = kwargs.get("aux")
        if aux is not None and expand_size > 1:
            kwargs["aux"] = aux.expand(expand_size)
        given = {"expand_size": expand_size, "is_encoder_decoder": is_encoder_decoder, "input_ids": input_ids}
        return super()._expand_inputs_for_generation(**given, **kwargs)

    def _prepare_position_ids_for_generation(self, inputs_tensor, model_kwargs):
        return self.images.generating(super())._prepare_position_ids_for_generation(inputs_tensor, model_kwargs)

    def _validate_model_kwargs(self, model_kwargs: dict) -> None:
        checking = self.images.generating(super())
        ours = PREFILL_ONLY if checking is self.host else ()  # which the host does not know
        checking._validate_model_kwargs({name: value for name, value in model_kwargs.items() if name not in ours})

    def _supports_mm_encoder_outputs(self) -> bool:
        supporting = self.images.generating(None)
        return supporting is not None and supporting._supports_mm_encoder_outputs()


def holds_prompt(cache) -> bool:
    """True when a cache holds the prompt. An assistant's first iteration is not called one, and its cache is empty."""
    return cache is not None and bool(cache.get_seq_length())


def _encoded_by(assistant, input_ids: Tensor, kwargs: dict) -> dict[str, Tensor] | None:
    """Encode images and perceptions by an assistant's own encoders: its width may be another, its training is."""
    if assistant is None:
        return None
    own = (name for name in AUXILIARY if name != "aux_words")  # which are the model's, and the assistant has others
    names = ("attention_mask", "prompt_mask", "pixel_values", *own)
    given = {name: kwargs[name].to(assistant.device) for name in names if kwargs.get(name) is not None}
    assistant._encode(input_ids.to(assistant.device), given)
    return {name: given[name] for name in PREFILL_ONLY if given.get(name) is not None}
