"""What one forward hands to the host and to the mixers on its layers, and what comes back from these.

Knows: tensors and the holder of the graft; not what encodes images and words, and not what the host makes of it all.
"""

from __future__ import annotations

import torch
from torch import Tensor

from moai.errors import HostError, PromptError
from moai.model.host.native_vision import sees
from moai.model.mixer.graft import Conditioning, locate

Auxiliary = tuple[Tensor | None, Tensor | None, Tensor | None]  # compressed tokens, their mask, their words


class Conditioned:
    """The conditioning half of the model; it needs its ``host``, ``mixers``, ``holder``, ``config`` and encoders."""

    def _host_inputs(self, input_ids, inputs_embeds, is_image, pixels, features, keep) -> dict:
        """The prompt as the host takes it: embedded with its images, or, where it sees for itself, as it came."""
        if sees(self.config):
            if keep is not None and not bool(keep.all()):
                raise HostError("a host that sees for itself has no image dropout; set image_dropout: 0 in both steps")
            seen = {"input_ids": input_ids, "inputs_embeds": inputs_embeds, "pixel_values": pixels}
            return {name: value for name, value in seen.items() if value is not None}
        if inputs_embeds is None:
            if pixels is not None and features is None:
                features = self.encode_images(pixels, input_ids, keep)
            inputs_embeds = self._embed(input_ids, is_image, features)
        seen = {"image_positions": is_image} if getattr(self.host, "takes_image_positions", False) else {}
        return {"inputs_embeds": inputs_embeds, **seen}

    def _condition(
        self,
        input_ids: Tensor | None,
        prompt_mask: Tensor | None,
        is_image: Tensor | None,
        aux: Auxiliary,
        module_choices: Tensor | None,
        guide: Tensor | None,
    ) -> None:
        """Set what the mixers of the coming forward need; without a prompt nothing is mixed.

        Raises:
            PromptError: the mixers copy words, and the compressed tokens came without theirs.
        """
        states, states_mask, said = aux
        if self.copies and states is not None and said is None:
            raise PromptError("this model copies words; give aux_said beside aux_states, or aux_input_ids instead")
        self.holder.conditioning = None
        if prompt_mask is None or not self.mixed:
            return
        image_index, image_mask = locate(prompt_mask & is_image)
        language_index, language_mask = locate(prompt_mask & ~is_image)
        if states is None:
            table = self.get_input_embeddings().weight
            states = table.new_zeros(len(prompt_mask), 0, table.shape[1])
            states_mask = prompt_mask.new_zeros(len(prompt_mask), 0)
        question = None
        if any(mixer.question_context for mixer in self.mixers.values()):
            question = self.question_mean(input_ids, prompt_mask & ~is_image)
        self.holder.conditioning = Conditioning(
            image_index,
            image_mask,
            language_index,
            language_mask,
            states,
            states_mask,
            choices=None if module_choices is None else [tuple(pair) for pair in module_choices.tolist()],
            question=question,
            said=said,
            guide=guide,
        )

    def _guide_loss(self) -> Tensor | None:
        """The mean over the mixers, behind the host's forward; None without a guide."""
        conditioning = self.holder.conditioning
        if conditioning is None or conditioning.guide is None:
            return None
        # Activation checkpointing runs the mixers again in the backward pass, and they add their losses again.
        return torch.stack(conditioning.guided[: len(self.mixers)]).mean()

    def _check_calls(self) -> None:
        conditioning = self.holder.conditioning
        if conditioning is not None and conditioning.calls != len(self.mixers):
            raise HostError(
                f"{type(self.host).__name__} ran {conditioning.calls} of {len(self.mixers)} mixers; "
                "its layers do not run through their forward hooks, so it cannot be a host"
            )
