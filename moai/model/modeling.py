"""The augmented model: a frozen host with image input, auxiliary encoder and mixers, as a Hugging Face model.

Knows: tensors and modules; never a perception. The model has its parts as members: ``images``, ``auxiliary``,
``mixers`` and ``host``. Weights come and go in ``run_folder``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel

from moai.compat import CACHE, CACHE_NAMES, attention_implementation, cache_of, takes_cache
from moai.errors import HostError, PromptError
from moai.model.analysis.attribution import AugmentedOutput, Trace
from moai.model.arguments import (
    OPTIONAL,
    answer_positions,
    kept_logits,
    padding_mask,
    prompt_positions,
    takes,
)
from moai.model.config import MoaiConfig
from moai.model.encoders.auxiliary import AuxiliaryEncoder
from moai.model.encoders.image_input import HostImages, image_input
from moai.model.encoders.vision import VisionEncoder, without_memory
from moai.model.generation import Generation
from moai.model.host.checks import cache_keyword, check_host, embedding_factors
from moai.model.host.layers import decoder_layers, mixer_layers
from moai.model.host.native_vision import host_vision_config
from moai.model.loss import router_arguments, training_loss
from moai.model.mixer.forward_context import ForwardContext, checkpoint_contexts
from moai.model.mixer.graft import graft, ungraft
from moai.model.mixer.inputs import Auxiliary, attended_in, continued_inputs, mixer_inputs, prompt_of
from moai.model.mixer.mixer import Mixer
from moai.model.packing import packed_inputs
from moai.model.parts import add_trained_parts
from moai.model.run_folder import load_run, save_run
from moai.model.weight_cache import apply_apart, cache_weights

if TYPE_CHECKING:
    from transformers import Cache


class MoaiForConditionalGeneration(Generation, PreTrainedModel, GenerationMixin):
    """A frozen causal language model that takes images and perceptions.

    Build it with ``from_pretrained`` (a run folder), or pass a loaded ``host`` and ``vision`` to train a new one. The
    host may be a vision-language model: with ``vision: {kind: host}`` its own vision gives the image tokens.
    """

    config_class = MoaiConfig
    base_model_prefix = "host"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    accepts_loss_kwargs = True  # `num_items_in_batch`, so that accumulated gradients are those of one large batch
    _skip_keys_device_placement = list(CACHE_NAMES)
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(
        self,
        config: MoaiConfig,
        host: nn.Module | None = None,
        vision: VisionEncoder | None = None,
        empty: bool = False,  # compressor and mixers without memory: their saved weights come next
    ) -> None:
        config.text_config = copy.deepcopy(config.text_config if host is None else host.config)
        # How the host was quantised is said in `host.quantization`; here it would read as said of the whole model.
        vars(config.text_config).pop("quantization_config", None)
        super().__init__(config)
        auto = AutoModelForImageTextToText if config.vision["kind"] == HostImages.kind else AutoModelForCausalLM
        self.host = host if host is not None else auto.from_config(copy.deepcopy(config.text_config))
        check_host(self.host)
        self.host_takes, self.host_cache = takes(self.host), cache_keyword(self.host)
        if attention_implementation(self.host.config) is None:
            # A configuration that contains the host's own resets this field, and the host then runs without its
            # causal mask: answers leak into the prompt and the loss falls to zero.
            self.host.set_attn_implementation("sdpa")
        factors = embedding_factors(self.host)
        self.images = image_input(config, self.host, vision, factors)
        own = {"arithmetic": config.arithmetic, "image_stream": self.images.has_tokens, **(config.mixer or {})}
        numbers = mixer_layers(len(decoder_layers(self.host)), own.pop("layers", None), own.pop("every", None))
        self.auxiliary = AuxiliaryEncoder(
            self.host,
            self.images,
            {"arithmetic": config.arithmetic, **(config.compressor or {})} if numbers else None,
            centered=config.arithmetic == "moai",
            context_layer=config.context_layer,
            fact_ends=config.fact_ends,
            word_order=config.word_order,
            scale=factors[0] * factors[1],
            image_tokens=config.image_tokens,
            empty=empty,
        )
        with without_memory() if empty else nullcontext():
            width = self.host.get_input_embeddings().embedding_dim
            self.mixers = nn.ModuleDict({str(number): Mixer(width, **own) for number in numbers})
        self.graft = graft(self.host, self.mixers, config.arithmetic, config.context_layer)
        self.auxiliary.graft, self.mixed = self.graft, True
        mixers = self.mixers.values()
        self.auxiliary.copies = any(mixer.copying is not None for mixer in mixers)
        self.auxiliary.copies_next = any(mixer.copying_next is not None for mixer in mixers)
        self.auxiliary.matches = any(mixer.match_words for mixer in mixers)
        self.pools = any(mixer.question_context for mixer in mixers)
        self.answers = any(mixer.answers for mixer in mixers)  # whether answer tokens read auxiliary tokens
        add_trained_parts(self)
        self.host.requires_grad_(False)
        self.generation_config = self.host.generation_config
        self.post_init()

    def init_weights(self) -> None:
        """Nothing: every part is initialised where it is built, and the host is loaded, never initialised."""

    @classmethod
    def around(
        cls,
        host: nn.Module,
        *,
        mixer: dict[str, Any] | None = None,
        compressor: dict[str, Any] | None = None,
        reference: str | None = None,
        **settings: Any,
    ) -> MoaiForConditionalGeneration:
        """Build compressor and mixers around a loaded vision-language model, which keeps its own vision.

        Args and errors are those of :func:`moai.model.host.native_vision.host_vision_config`.
        """
        return cls(host_vision_config(host, mixer, compressor, reference, **settings), host=host)

    def adapters(self) -> dict[str, nn.Module]:
        """Name our own modules: none of the host's, nor of the vision encoder's."""
        mixing = {"compressor": self.auxiliary.compressor, "mixers": self.mixers} if len(self.mixers) else {}
        return self.images.adapters() | mixing

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Name the parameters of our own modules."""
        parts = self.adapters().items()
        return {f"{part}.{name}": p for part, module in parts for name, p in module.named_parameters()}

    def fix_adapters(self) -> MoaiForConditionalGeneration:
        """For answering: cache the half-precision copies and products of weights that every forward computes anew.

        Numbers are the same bit for bit. It takes half the adapters' memory more on a host in half precision. Training,
        loading and moving the model drop it; after changing weights in another way, call it again.
        """
        cache_weights(self.adapters().values(), self.get_input_embeddings().weight.dtype)
        return self

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> MoaiForConditionalGeneration:
        """As in PyTorch, but adapters are not rounded: ``model.half()`` halves the host, and adapters stay in fp32."""
        apply_apart(self, fn, list(self.adapters().values()))
        return self

    def remove_mixers(self) -> nn.Module:
        """Take the mixers off and return the host, which then is bit for bit what was loaded."""
        ungraft(self.host)
        self.mixed = False
        return self.host

    def train(self, mode: bool = True) -> MoaiForConditionalGeneration:
        """The host stays in evaluation mode: it is frozen, its dropout included."""
        super().train(mode)
        self.host.train(False)
        for layer in decoder_layers(self.host):
            # transformers checkpoints only layers in training mode; the dropout modules inside stay off.
            layer.training = mode and getattr(layer, "gradient_checkpointing", False)
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        # Never reentrant: each mixer's recomputation would then walk the compressor's graph, which lasts for one walk.
        function = partial(gradient_checkpointing_func, use_reentrant=False, context_fn=checkpoint_contexts)
        super()._set_gradient_checkpointing(enable, function, **kwargs)
        self.train(self.training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile what is the same for every batch, each part as one graph if ``fullgraph=True`` asks for it.

        That is the host with its mixers, and the compressor. What stays outside depends on the data: how many image
        tokens a row has and where they stand. ``torch.compile(model)`` breaks its graph there; this does not.
        """
        host = self.get_decoder() if isinstance(self.images, HostImages) else self.host
        for part in (host, *self.auxiliary.children()):
            part.compile(*args, **kwargs)

    def get_input_embeddings(self) -> nn.Module:
        """The host's word embeddings."""
        return self.host.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The host's output layer."""
        return self.host.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        """The host's decoder stack."""
        return self.host.get_decoder()

    @takes_cache
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        cache: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        image_keep: Tensor | None = None,
        aux_input_ids: Tensor | None = None,
        aux_attention_mask: Tensor | None = None,
        aux_pixel_values: Tensor | None = None,
        aux_pixel_mask: Tensor | None = None,
        aux_words: Tensor | None = None,
        aux: Auxiliary | None = None,
        prompt_mask: Tensor | None = None,
        module_choices: Tensor | None = None,
        attention_targets: Tensor | None = None,
        document_ids: Tensor | None = None,
        labels: Tensor | None = None,
        num_items_in_batch: Tensor | int | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        return_attribution: bool = False,
        **kwargs: Any,
    ) -> AugmentedOutput:
        """Run the host with images in place of their placeholders and mixers at the prompt positions.

        Args:
            input_ids: ``(B, S)`` with ``image_tokens`` placeholders per image.
            attention_mask: ``(B, S)``, or what the host takes; padding may stand on either side.
            cache: what an earlier forward returned; ``past_key_values`` is the same, in every version.
            inputs_embeds: ``(B, S, D)`` instead of embedding ``input_ids``, which then only say where images stand.
            pixel_values: ``(N, 3, h, w)``, all images in the order of their placeholders.
            image_features: ``(B, M, D)`` instead of pixels, as ``images.encode`` returns them.
            image_keep: ``(B,)`` bool; rows that are false get zero vision features (image dropout in training).
            aux_input_ids, aux_attention_mask, aux_pixel_values, aux_pixel_mask, aux_words: of ``AuxiliaryEncoder``.
            aux: what ``auxiliary.encode`` returns of these instead; answer tokens whose prompt is in the cache read it.
            prompt_mask: ``(B, S)`` true at image and prompt tokens: what is mixed, never padding or answers; left out,
                all without a label. What stands between two answers is mixed by itself.
            module_choices: ``(mixers, 2)`` step 1's draw; left out, the gates blend.
            attention_targets: ``(B, G, A + 1)`` bool: groups of words, then the null token: ``Mixer.attention_loss``.
            document_ids: ``(B, S)`` of packed rows, as :func:`~moai.model.packing.packed_inputs` takes them.
            labels: ``(B, S)``, -100 where no loss is taken; the loss is the mean over the others, zero without any.
            num_items_in_batch: divide the sum of the losses by this instead, as transformers' ``Trainer`` asks.
            return_attribution: put :class:`~moai.model.analysis.attribution.Attribution` into the output.

        Returns:
            ``loss`` (with labels), ``logits`` (with labels only at the answer positions), the cache under the name of
            this transformers, and with ``attention_targets`` ``attention_loss``, the mean over the mixers.

        Raises:
            PromptError: placeholders without images; perceptions beside ``inputs_embeds`` alone; nothing to attribute.
        """
        window = input_ids.shape[1] if input_ids is not None else inputs_embeds.shape[1]
        past = cache.get_seq_length() if cache is not None else 0
        if input_ids is None and any(one is not None for one in (aux_input_ids, aux, prompt_mask)):
            raise PromptError("mixers need input_ids, which say where images stand; pass them beside inputs_embeds")
        prompt_mask = prompt_positions(prompt_mask, attention_mask, labels, input_ids, past, window)
        trace = Trace(list(map(int, self.mixers))) if return_attribution else None
        prompt = prompt_of(input_ids, inputs_embeds, prompt_mask, self.config.image_token_id)
        given = self.images.host_inputs(prompt, pixel_values, image_features, image_keep, kwargs)
        if aux_input_ids is not None and aux is None and len(self.mixers):
            words = (aux_input_ids, aux_attention_mask, aux_pixel_values, aux_pixel_mask, aux_words)
            aux = self.auxiliary.encode(*words, trace)
        targets = attention_targets
        if targets is not None:
            targets = self.auxiliary.target_latents(targets, aux_input_ids, aux_attention_mask, aux_pixel_mask)
        inputs = None
        if prompt_mask is None and self.answers and self.mixed and past and aux is not None:
            inputs = continued_inputs(prompt, self.auxiliary.checked(aux))
        elif prompt_mask is not None and self.mixed and len(self.mixers):
            inputs = mixer_inputs(
                prompt,
                prompt_mask,
                attended_in(padding_mask(attention_mask), window),
                self.auxiliary.checked(aux),
                embeddings=self.get_input_embeddings().weight,
                choices=module_choices,
                targets=targets,
                question_embedding=self.auxiliary.question_embedding if self.pools else None,
                find_matches=self.auxiliary.find_matches if self.auxiliary.matches else None,
                document_ids=document_ids,
                cached=past if self.answers else None,
            )
        context = ForwardContext(self.graft, inputs, trace=trace)
        if labels is not None:
            logits_to_keep, given = answer_positions(labels), given | router_arguments(self)
        if document_ids is not None:
            attention_mask, position_ids = packed_inputs(document_ids, self.get_input_embeddings().weight.dtype)
        elif position_ids is None:
            kwargs.update(self.images.position_inputs(input_ids, attention_mask, window, past, kwargs))
            position_ids = kwargs.pop("position_ids", None)
        optional = dict(zip(OPTIONAL, (position_ids, logits_to_keep, use_cache), strict=True))
        with context.running():
            output = self.host(
                **given,
                **{"attention_mask": attention_mask, self.host_cache: cache},
                **{name: value for name, value in optional.items() if name in self.host_takes},
                **kwargs,
            )
        self._check_calls(context)
        logits, loss = kept_logits(output.logits, logits_to_keep, window), None
        if labels is not None:
            loss = training_loss(self, output, logits, labels[:, logits_to_keep[1:]], num_items_in_batch)
        return AugmentedOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            attention_loss=torch.stack(context.losses).mean() if context.losses else None,
            attribution=None if trace is None else trace.result(context.inputs),
            **{CACHE: cache_of(output)},
        )

    def _check_calls(self, context: ForwardContext) -> None:
        if context.inputs is not None and context.calls != len(self.mixers):
            raise HostError(
                f"{type(self.host).__name__} ran {context.calls} of {len(self.mixers)} mixers; "
                "its layers do not run through their forward hooks, so it cannot be a host"
            )

    @classmethod
    def from_pretrained(
        cls, folder: str | Path, *args: Any, config: MoaiConfig | None = None, **kwargs: Any
    ) -> MoaiForConditionalGeneration:
        """Load a run folder (or a hub id of one): the frozen parts by reference, ours from ``moai.safetensors``.

        Raises:
            CheckpointError: a file is missing or its hash is not the one that was saved.
        """
        return load_run(cls, folder, config, **kwargs)

    def save_pretrained(self, folder: str | Path, **kwargs: Any) -> None:
        """Save what was trained, the configuration, and the references and hashes of the frozen parts."""
        save_run(self, folder)


AutoModelForImageTextToText.register(MoaiConfig, MoaiForConditionalGeneration, exist_ok=True)
