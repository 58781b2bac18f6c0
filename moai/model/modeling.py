"""The augmented model: a frozen host with connector, compressor and mixers, as a Hugging Face model.

Knows: tensors and modules; never a perception. Weights come and go in ``checkpoint``.
"""

from __future__ import annotations

import copy
from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, GenerationMixin, PreTrainedModel
from transformers.modeling_outputs import CausalLMOutputWithPast

from moai.errors import HostError, PromptError
from moai.model.checkpoint import load_run, save_run
from moai.model.compressor import Compressor
from moai.model.config import MoaiConfig, mixer_layers
from moai.model.generation import PromptGeneration
from moai.model.graft import Conditioning, Holder, decoder_layers, graft, half_precision, locate, ungraft
from moai.model.mixer import Mixer, unit
from moai.model.vision import VisionEncoder, build_vision
from moai.plugins import registry


class MoaiForConditionalGeneration(PromptGeneration, PreTrainedModel, GenerationMixin):
    """A frozen causal language model that sees images and perceptions.

    Build it with ``from_pretrained`` (a run folder), or pass a loaded ``host`` and ``vision`` to train a new one.
    """

    config_class = MoaiConfig
    base_model_prefix = "host"
    main_input_name = "input_ids"
    input_modalities = ("image", "text")
    supports_gradient_checkpointing = True
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = _supports_flash_attn = _supports_flex_attn = _supports_attention_backend = True

    def __init__(self, config: MoaiConfig, host: nn.Module | None = None, vision: VisionEncoder | None = None) -> None:
        config.text_config = copy.deepcopy(config.text_config if host is None else host.config)
        super().__init__(config)
        self.host = host if host is not None else AutoModelForCausalLM.from_config(copy.deepcopy(config.text_config))
        if self.host.config._attn_implementation is None:
            # A configuration that contains the host's own resets this field, and the host then runs without its
            # causal mask: answers leak into the prompt and the loss falls to zero.
            self.host.set_attn_implementation("sdpa")
        self.vision = vision if vision is not None else build_vision(**_vision_arguments(config))
        width = self.host.get_input_embeddings().embedding_dim
        kind, options = config.connector["kind"], config.connector.get("options") or {}
        self.connector = registry().get_connector(kind)(self.vision.width, width, **options)
        self.compressor = Compressor(width, **config.compressor)
        arguments = dict(config.mixer)
        self.placement = arguments.pop("placement")
        numbers = mixer_layers(
            len(decoder_layers(self.host)), arguments.pop("layers", None), arguments.pop("every", None)
        )
        self.mixers = nn.ModuleDict({str(number): Mixer(width, **arguments) for number in numbers})
        self.holder, self.mixed = Holder(), True
        graft(self.host, self.mixers, self.holder, self.placement)
        self._center()
        self.host.requires_grad_(False)
        self.generation_config = self.host.generation_config
        self.post_init()

    def init_weights(self) -> None:
        """Nothing: every part is initialised where it is built, and the host is loaded, never initialised."""

    def _center(self) -> None:
        table = self.host.get_input_embeddings().weight
        mean = torch.zeros(table.shape[1], device=table.device)
        if self.config.center_aux and table.device.type != "meta":
            mean = table.detach().float().mean(dim=0)
        self.register_buffer("aux_mean", mean, persistent=False)

    # What stands where -------------------------------------------------------------------------------------------

    def adapters(self) -> dict[str, nn.Module]:
        """The parts that train, by name: all of ours, none of the host's or the vision encoder's."""
        return {"connector": self.connector, "compressor": self.compressor, "mixers": self.mixers}

    def adapter_parameters(self) -> dict[str, nn.Parameter]:
        """Trainable name -> parameter; exactly what a checkpoint holds."""
        return {
            f"{part}.{name}": p for part, module in self.adapters().items() for name, p in module.named_parameters()
        }

    def remove_mixers(self) -> nn.Module:
        """Take the mixers off and return the host, which then is bit for bit what was loaded."""
        ungraft(self.host)
        self.mixed = False
        return self.host

    def train(self, mode: bool = True) -> MoaiForConditionalGeneration:
        """The host stays in evaluation mode: it is frozen, its dropout included."""
        super().train(mode)
        self.host.eval()
        for layer in decoder_layers(self.host):
            # transformers checkpoints only layers in training mode; the dropout modules inside stay off.
            layer.training = mode and getattr(layer, "gradient_checkpointing", False)
        return self

    def _set_gradient_checkpointing(
        self, enable: bool = True, gradient_checkpointing_func=checkpoint, **kwargs
    ) -> None:
        # Never reentrant: each mixer's recomputation would then walk the compressor's graph, which lasts for one walk.
        function = partial(gradient_checkpointing_func, use_reentrant=False)
        super()._set_gradient_checkpointing(enable, function, **kwargs)
        self.train(self.training)

    def get_input_embeddings(self) -> nn.Module:
        """The host's word embeddings."""
        return self.host.get_input_embeddings()

    def get_output_embeddings(self) -> nn.Module:
        """The host's output layer."""
        return self.host.get_output_embeddings()

    def get_decoder(self) -> nn.Module:
        """The host's decoder stack."""
        return self.host.get_decoder()

    # Encoding ----------------------------------------------------------------------------------------------------

    def encode_images(self, pixel_values: Tensor, input_ids: Tensor, keep: Tensor | None = None) -> Tensor:
        """``pixel_values (N, 3, h, w)``, in the order of the placeholders, to ``(B, M, D)`` padded per row.

        ``keep (B,)`` zeroes the vision features of the rows that are false. Before the connector, never behind it: a
        zero embedding stays zero through every layer, and its gradient is multiplied by each norm's ``1 / sqrt(eps)``.

        Raises:
            PromptError: the placeholders in ``input_ids`` do not match the number of images.
        """
        counts = (input_ids == self.config.image_token_id).sum(dim=1)
        features = self.vision(pixel_values)
        if keep is not None:
            kept = keep.repeat_interleave(counts // self.config.image_tokens)
            features = features * kept[:, None, None].to(features.dtype)
        with self._precision():
            features = self.connector(features)  # (N, tokens, D)
        if int(counts.sum()) != features.shape[0] * features.shape[1]:
            raise PromptError(
                f"{int(counts.sum())} image placeholders for {features.shape[0]} images of "
                f"{features.shape[1]} tokens; build the inputs with MoaiProcessor"
            )
        rows = features.flatten(0, 1).split(counts.tolist())
        return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def encode_aux(
        self,
        aux_input_ids: Tensor,
        aux_attention_mask: Tensor,
        aux_pixel_values: Tensor | None = None,
        aux_pixel_mask: Tensor | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Auxiliary tokens to compressed ones.

        Args:
            aux_input_ids, aux_attention_mask: the verbalized perception, ``(B, A)``.
            aux_pixel_values: panoptic maps ``(B, M, 3, h, w)``; ``aux_pixel_mask (B, M)`` says which are real.

        Returns:
            ``(B, C, D)`` and its mask ``(B, C)``, false for rows without any perception.
        """
        words = self.get_input_embeddings()(aux_input_ids).float()
        if self.config.center_aux:
            words = unit(words - self.aux_mean)
        mask = aux_attention_mask.bool()
        with self._precision():
            if aux_pixel_values is not None:
                maps = self.connector(self.vision(aux_pixel_values.flatten(0, 1))).float()
                maps = unit(maps) if self.config.center_aux else maps
                maps = maps.unflatten(0, aux_pixel_values.shape[:2])  # (B, M, tokens, D)
                real = aux_pixel_mask.bool()[..., None].expand(maps.shape[:3])
                words = torch.cat([words, maps.flatten(1, 2)], dim=1)
                mask = torch.cat([mask, real.flatten(1)], dim=1)
            states = self.compressor(words, mask)
        return states, mask.any(dim=1)[:, None].expand(states.shape[:2])

    def _precision(self):
        """Adapters keep fp32 weights and compute in the host's half precision, in training as in inference."""
        return half_precision(self.host.get_input_embeddings().weight)

    # Forward -----------------------------------------------------------------------------------------------------

    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values=None,
        inputs_embeds: Tensor | None = None,
        pixel_values: Tensor | None = None,
        image_features: Tensor | None = None,
        image_keep: Tensor | None = None,
        aux_input_ids: Tensor | None = None,
        aux_attention_mask: Tensor | None = None,
        aux_pixel_values: Tensor | None = None,
        aux_pixel_mask: Tensor | None = None,
        aux_states: Tensor | None = None,
        aux_states_mask: Tensor | None = None,
        prompt_mask: Tensor | None = None,
        module_choices: Tensor | None = None,
        labels: Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        """Run the host with images in place of their placeholders and mixers at the prompt positions.

        Args:
            input_ids: ``(B, S)`` with ``image_tokens`` placeholders per image.
            attention_mask: ``(B, S)``, or what the host takes; padding may stand on either side.
            pixel_values: ``(N, 3, h, w)``, all images in the order of their placeholders.
            image_features: ``(B, M, D)`` instead of pixels, as ``encode_images`` gives them.
            image_keep: ``(B,)`` bool; rows that are false get zero vision features (image dropout in training).
            aux_input_ids, aux_attention_mask, aux_pixel_values, aux_pixel_mask: see :meth:`encode_aux`.
            aux_states, aux_states_mask: compressed tokens instead, as ``encode_aux`` gives them.
            prompt_mask: ``(B, S)`` true at image and prompt tokens: what is mixed. Never padding, answers, or generated
                tokens. Left out, it is everything before the first label, or all of the prompt.
            module_choices: ``(mixers, 2)`` step 1's draw; left out, the gates blend.
            labels: ``(B, S)``, -100 where no loss is taken; the loss is the mean over the others.

        Returns:
            ``loss`` (with labels), ``logits`` (with labels only at the answer positions), ``past_key_values``.
        """
        window = input_ids.shape[1] if input_ids is not None else inputs_embeds.shape[1]
        past = past_key_values.get_seq_length() if past_key_values is not None else 0
        prompt_mask = _prompt_mask(prompt_mask, attention_mask, labels, input_ids, past, window)
        is_image = None if input_ids is None else input_ids == self.config.image_token_id
        if inputs_embeds is None:
            if pixel_values is not None and image_features is None:
                image_features = self.encode_images(pixel_values, input_ids, image_keep)
            inputs_embeds = self._embed(input_ids, is_image, image_features)
        if aux_input_ids is not None and aux_states is None:
            aux_states, aux_states_mask = self.encode_aux(
                aux_input_ids, aux_attention_mask, aux_pixel_values, aux_pixel_mask
            )
        self._condition(prompt_mask, is_image, aux_states, aux_states_mask, module_choices, inputs_embeds)
        if labels is not None:
            first = int((labels != -100).int().argmax(dim=1).min())
            logits_to_keep = torch.arange(max(first - 1, 0), window, device=labels.device)
        if position_ids is None and attention_mask is not None and attention_mask.ndim == 2:
            position_ids = (attention_mask.long().cumsum(dim=1) - 1).clamp(min=0)[:, -window:]
        output = self.host(
            inputs_embeds=inputs_embeds,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            use_cache=use_cache,
            logits_to_keep=logits_to_keep,
            **kwargs,
        )
        self._check_calls()
        loss = None
        if labels is not None:
            targets = labels[:, logits_to_keep[1:]]
            loss = F.cross_entropy(output.logits[:, :-1].flatten(0, 1).float(), targets.flatten())
        return CausalLMOutputWithPast(
            loss=loss,
            logits=output.logits,
            past_key_values=output.past_key_values,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )

    def _embed(self, input_ids: Tensor, is_image: Tensor, image_features: Tensor | None) -> Tensor:
        table = self.get_input_embeddings()
        # The placeholder's id may lie outside the host's vocabulary; it is never looked up.
        words = table(input_ids.masked_fill(is_image, 0))
        if image_features is None or image_features.shape[1] == 0:
            return words
        order = (is_image.long().cumsum(dim=1) - 1).clamp(min=0)  # k-th placeholder of its row
        order = order.clamp(max=image_features.shape[1] - 1)
        images = image_features.to(words.dtype).gather(1, order[..., None].expand_as(words))
        return torch.where(is_image[..., None], images, words)

    def _condition(self, prompt_mask, is_image, aux_states, aux_states_mask, module_choices, embeds) -> None:
        self.holder.conditioning = None
        if prompt_mask is None or not self.mixed:
            return
        image_index, image_mask = locate(prompt_mask & is_image)
        language_index, language_mask = locate(prompt_mask & ~is_image)
        if aux_states is None:
            aux_states = embeds.new_zeros(embeds.shape[0], 0, embeds.shape[2])
            aux_states_mask = prompt_mask.new_zeros(embeds.shape[0], 0)
        choices = None if module_choices is None else [tuple(pair) for pair in module_choices.tolist()]
        self.holder.conditioning = Conditioning(
            image_index, image_mask, language_index, language_mask, aux_states, aux_states_mask, choices
        )

    def _check_calls(self) -> None:
        conditioning = self.holder.conditioning
        if conditioning is not None and conditioning.calls != len(self.mixers):
            raise HostError(
                f"{type(self.host).__name__} ran {conditioning.calls} of {len(self.mixers)} mixers; "
                "its layers do not run through their forward hooks, so it cannot be a host"
            )

    # Loading and saving ------------------------------------------------------------------------------------------

    @classmethod
    def from_pretrained(cls, folder, *args, config: MoaiConfig | None = None, **kwargs) -> MoaiForConditionalGeneration:
        """Load a run folder (or a hub id of one): the frozen parts by reference, ours from ``moai.safetensors``.

        Raises:
            CheckpointError: a file is missing or its hash is not the one that was saved.
        """
        return load_run(cls, folder, config, **kwargs)

    def save_pretrained(self, folder, **kwargs) -> None:
        """Save what was trained, the configuration, and the references and hashes of the frozen parts."""
        save_run(self, folder)


def _prompt_mask(given, attention_mask, labels, input_ids, past: int, window: int) -> Tensor | None:
    """The mask for the current window ``(B, window)``; ``None`` where nothing is to be mixed."""
    if given is not None:
        given = F.pad(given.bool()[:, past : past + window], (0, max(0, past + window - given.shape[1])))
        return given if past == 0 or bool(given.any()) else None
    if past or input_ids is None:
        return None
    mask = torch.ones_like(input_ids, dtype=torch.bool)
    if attention_mask is not None and attention_mask.ndim == 2:
        mask = attention_mask.bool()
    if labels is not None:  # an answer, and any turn behind it, must not reach what comes before it
        mask = mask & ((labels != -100).cumsum(dim=1) == 0)
    return mask


def _vision_arguments(config: MoaiConfig) -> dict:
    return {name: value for name, value in config.vision.items() if name not in ("sha256", "image_size")}


AutoModelForImageTextToText.register(MoaiConfig, MoaiForConditionalGeneration, exist_ok=True)
