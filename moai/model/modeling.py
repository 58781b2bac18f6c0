"""The augmented model: a frozen host with connector, compressor and mixers, as a Hugging Face model.

Knows: tensors and modules; never a perception. Weights come and go in ``checkpoint``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from moai.compat import CACHE, CACHE_NAMES, attention_implementation, cache_of, takes_cache
from moai.model.analysis.attribution import attributable
from moai.model.arguments import OPTIONAL, answer_positions, kept_logits, positions, prompt_positions, takes
from moai.model.config import MoaiConfig, mixer_layers
from moai.model.encoders.auxiliary import Encoders
from moai.model.encoders.compressor import Compressor
from moai.model.encoders.vision import VisionEncoder, build_vision, vision_arguments, without_memory
from moai.model.generation import PromptGeneration
from moai.model.host.checks import cache_keyword, check_host, embedding_factors
from moai.model.host.native_vision import SeeingHostGeneration, Unseeing, seeing_config, sees
from moai.model.mixer.conditioning import Conditioned
from moai.model.mixer.graft import Holder, decoder_layers, graft, ungraft
from moai.model.mixer.mixer import Mixer
from moai.model.run_folder import load_run, save_run
from moai.model.weight_cache import keep
from moai.plugins import registry

if TYPE_CHECKING:
    from transformers import Cache


@dataclass
class AugmentedOutput(CausalLMOutputWithPast):
    """A causal language model's output; with a guide, also its loss, which ``loss`` is without."""

    guide_loss: Tensor | None = None


class MoaiForConditionalGeneration(
    Encoders, Conditioned, SeeingHostGeneration, PromptGeneration, PreTrainedModel, GenerationMixin
):
    """A frozen causal language model that sees images and perceptions.

    Build it with ``from_pretrained`` (a run folder), or pass a loaded ``host`` and ``vision`` to train a new one. The
    host may be a vision-language model: with ``vision.reference: host`` its own vision half gives the image tokens.
    """

    config_class = MoaiConfig
    base_model_prefix = "host"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
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
        auto = AutoModelForImageTextToText if sees(config) else AutoModelForCausalLM
        self.host = host if host is not None else auto.from_config(copy.deepcopy(config.text_config))
        check_host(self.host)
        self.host_takes, self.host_cache = takes(self.host), cache_keyword(self.host)
        self.word_factor, self.embedding_factor = embedding_factors(self.host)
        if attention_implementation(self.host.config) is None:
            # A configuration that contains the host's own resets this field, and the host then runs without its
            # causal mask: answers leak into the prompt and the loss falls to zero.
            self.host.set_attn_implementation("sdpa")
        width = self.host.get_input_embeddings().embedding_dim
        self.vision, self.connector = self._see(vision, width)
        arguments = dict(config.mixer)
        numbers = mixer_layers(
            len(decoder_layers(self.host)), arguments.pop("layers", None), arguments.pop("every", None)
        )
        with without_memory() if empty else nullcontext():
            self.compressor = Compressor(width, arithmetic=config.arithmetic, **config.compressor)
            self.mixers = nn.ModuleDict(
                {str(number): Mixer(width, arithmetic=config.arithmetic, **arguments) for number in numbers}
            )
        self.holder, self.mixed = Holder(), True
        graft(self.host, self.mixers, self.holder, config.arithmetic)
        self.register_buffer("aux_mean", None, persistent=False)  # computed by who asks first
        self.register_buffer("said_mean", None, persistent=False)
        self.copies = any(mixer.copying is not None for mixer in self.mixers.values())
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
        """Compressor and mixers around a loaded vision-language model, which keeps its own eyes.

        Args:
            host: a model of ``AutoModelForImageTextToText``.
            mixer, compressor: as in :class:`MoaiConfig`; what is left out has its default.
            reference: where the host came from: a path or hub id. Without it the model can be used, but not saved.
            settings: ``revision`` and ``quantization`` of the host, and further fields of :class:`MoaiConfig`.

        Raises:
            HostError: no image token is known, it reads prompts in both directions, or it cannot be a host.
        """
        return cls(seeing_config(host, mixer, compressor, reference, **settings), host=host)

    def _see(self, vision: VisionEncoder | None, width: int) -> tuple[nn.Module, nn.Module]:
        """Vision encoder and connector; both stand-ins where the host sees for itself."""
        if sees(self.config):
            return Unseeing(), Unseeing()
        if vision is None:
            vision = build_vision(**vision_arguments(self.config))
        kind, options = self.config.connector["kind"], self.config.connector.get("options") or {}
        return vision, registry().get_connector(kind)(vision.width, width, **options)

    # What stands where -------------------------------------------------------------------------------------------

    def adapters(self) -> dict[str, nn.Module]:
        """The parts that train, by name: all of ours, none of the host's or the vision encoder's."""
        connector = {} if sees(self.config) else {"connector": self.connector}
        return {**connector, "compressor": self.compressor, "mixers": self.mixers}

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Trainable name -> parameter; exactly what a checkpoint holds."""
        return {
            f"{part}.{name}": p for part, module in self.adapters().items() for name, p in module.named_parameters()
        }

    def fix_adapters(self) -> MoaiForConditionalGeneration:
        """For answering: keep the half-precision copies and products of weights that every forward computes anew.

        Numbers are the same bit for bit. It takes half the adapters' memory more on a host in half precision. Training,
        loading and moving the model throw it away; after changing weights in another way, call it again.
        """
        keep(self.adapters().values(), self.get_input_embeddings().weight.dtype)
        return self

    def remove_mixers(self) -> nn.Module:
        """Take the mixers off and return the host, which then is bit for bit what was loaded."""
        ungraft(self.host)
        self.mixed = False
        return self.host

    def train(self, mode: bool = True) -> MoaiForConditionalGeneration:
        """The host stays in evaluation mode: it is frozen, its dropout included."""
        super().train(mode)
        if mode:
            self.host.eval()
        for layer in decoder_layers(self.host):
            # transformers checkpoints only layers in training mode; the dropout modules inside stay off.
            layer.training = mode and getattr(layer, "gradient_checkpointing", False)
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func: Callable[..., Any] = checkpoint, **kwargs: Any
    ) -> None:
        # Never reentrant: each mixer's recomputation would then walk the compressor's graph, which lasts for one walk.
        function = partial(gradient_checkpointing_func, use_reentrant=False)
        super()._set_gradient_checkpointing(enable, function, **kwargs)
        self.train(self.training)

    def compile(self, *args: Any, **kwargs: Any) -> None:
        """Compile what is the same for every batch, each part as one graph if ``fullgraph=True`` asks for it.

        That is the host with its mixers, and the compressor. What stays outside depends on the data: how many image
        tokens a row has and where they stand. ``torch.compile(model)`` breaks its graph there; this does not.
        """
        for part in (self.get_decoder() if sees(self.config) else self.host, self.compressor):
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

    # Forward -----------------------------------------------------------------------------------------------------

    @takes_cache
    @attributable
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
        aux_states: Tensor | None = None,
        aux_states_mask: Tensor | None = None,
        aux_said: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        module_choices: Tensor | None = None,
        guide: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs: Any,
    ) -> AugmentedOutput:
        """Run the host with images in place of their placeholders and mixers at the prompt positions.

        Args:
            input_ids: ``(B, S)`` with ``image_tokens`` placeholders per image.
            attention_mask: ``(B, S)``, or what the host takes; padding may stand on either side.
            cache: what an earlier forward returned, to go on from; ``past_key_values`` is the same, in every version.
            pixel_values: ``(N, 3, h, w)``, all images in the order of their placeholders.
            image_features: ``(B, M, D)`` instead of pixels, as ``encode_images`` gives them.
            image_keep: ``(B,)`` bool; rows that are false get zero vision features (image dropout in training).
            aux_input_ids, aux_attention_mask, aux_pixel_values, aux_pixel_mask, aux_words: see :meth:`encode_aux`.
            aux_states, aux_states_mask: compressed tokens instead, as ``encode_aux`` gives them.
            aux_said: with them, what :meth:`aux_said` gives; for mixers that copy words.
            prompt_mask: ``(B, S)`` true at image and prompt tokens: what is mixed. Never padding, answers, or generated
                tokens. Left out, it is everything before the first label, or all of the prompt.
            module_choices: ``(mixers, 2)`` step 1's draw; left out, the gates blend.
            guide: ``(B, G, A + 1)`` bool: groups of auxiliary words, then "none of them"; see :meth:`Mixer.guide_loss`.
            labels: ``(B, S)``, -100 where no loss is taken; the loss is the mean over the others.
            return_attribution: ``True`` puts :class:`~moai.model.analysis.attribution.Attribution` into the output.

        Returns:
            ``loss`` (with labels), ``logits`` (with labels only at the answer positions), and the cache under the name
            that this version of transformers gives it; with ``guide`` also ``guide_loss``, the mean of
            :meth:`Mixer.guide_loss` over the mixers; ``loss`` is without it.
        """
        window = input_ids.shape[1] if input_ids is not None else inputs_embeds.shape[1]
        past = cache.get_seq_length() if cache is not None else 0
        prompt_mask = prompt_positions(prompt_mask, attention_mask, labels, input_ids, past, window)
        is_image = None if input_ids is None else input_ids == self.config.image_token_id
        given = self._host_inputs(input_ids, inputs_embeds, is_image, pixel_values, image_features, image_keep)
        if aux_input_ids is not None and aux_states is None:
            words = (aux_input_ids, aux_attention_mask)
            aux_states, aux_states_mask = self.encode_aux(*words, aux_pixel_values, aux_pixel_mask, aux_words)
            aux_said = self.aux_said(*words, aux_pixel_mask) if self.copies else None
        slots = None if guide is None else self.guide_slots(guide, aux_input_ids, aux_attention_mask, aux_pixel_mask)
        aux = (aux_states, aux_states_mask, aux_said)
        self._condition(input_ids, prompt_mask, is_image, aux, module_choices, slots)
        if labels is not None:
            logits_to_keep = answer_positions(labels)
        if position_ids is None and not sees(self.config):
            position_ids = positions(attention_mask, window)
        elif position_ids is None and past == 0:
            kwargs.update(self._typed(input_ids, kwargs))
        optional = dict(zip(OPTIONAL, (position_ids, logits_to_keep, use_cache), strict=True))
        output = self.host(
            **given,
            attention_mask=attention_mask,
            **{self.host_cache: cache},
            **{name: value for name, value in optional.items() if name in self.host_takes},
            **kwargs,
        )
        self._check_calls()
        logits, loss = kept_logits(output.logits, logits_to_keep, window), None
        if labels is not None:
            targets = labels[:, logits_to_keep[1:]]
            loss = F.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets.flatten())
        return AugmentedOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            guide_loss=self._guide_loss(),
            **{CACHE: cache_of(output)},
        )

    # Loading and saving ------------------------------------------------------------------------------------------

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
