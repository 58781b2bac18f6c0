"""The processor around a vision-language host: the host's own, plus the perception in words.

Knows: the host's processor, and, as ``processing`` does, perceptions. The host's processor places the image tokens;
what it returns goes to the model unchanged, beside the auxiliary words and the mask of what is mixed.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import BatchFeature

from moai.errors import PromptError
from moai.images import read_image
from moai.model.processing import auxiliary, plain_tokenizer, speak_within
from moai.perception.types import Perception


class SeeingProcessor:
    """Wraps the processor of a vision-language model.

    Args:
        processor: of transformers, as ``AutoProcessor.from_pretrained`` gives it for the host.
        language: of the verbalization.
        max_aux_tokens: of the verbalized perception; a longer one loses its least important facts.
    """

    def __init__(self, processor, *, language: str = "en", max_aux_tokens: int = 512) -> None:
        self.processor, self.language, self.max_aux_tokens = processor, language, max_aux_tokens
        self.tokenizer = processor.tokenizer
        self.tokenizer.padding_side = "left"  # generation continues at the right end
        self._plain = plain_tokenizer(self.tokenizer)

    def __call__(
        self, images=None, text=None, perceptions: Sequence[Perception | None] | None = None, **kwargs
    ) -> BatchFeature:
        """Turn prompts into model inputs.

        Args:
            images: one image or none per prompt, in the order of the prompts.
            text: one prompt or several, with the placeholders that the host's chat template writes.
            perceptions: one per prompt; ``None`` entries switch perception off.

        Returns:
            what the host's processor returns, and ``prompt_mask (B, S)``; with perceptions also ``aux_input_ids`` and
            ``aux_attention_mask`` ``(B, A)``.

        Raises:
            PromptError: not one perception per prompt.
        """
        text = [text] if isinstance(text, str) else list(text)
        if images is not None:
            images = images if isinstance(images, (list, tuple)) else [images]
            kwargs["images"] = [read_image(image) for image in images]
        kwargs = {"return_tensors": "pt", "padding": len(text) > 1, **kwargs}
        data = self.processor(text=text, **kwargs)
        data["prompt_mask"] = data["attention_mask"].bool()
        if perceptions is not None:
            if len(perceptions) != len(text):
                raise PromptError(f"{len(perceptions)} perceptions for {len(text)} prompts; give one each, or None")
            data.update(self.aux_inputs(perceptions))
        return data

    def aux_inputs(self, perceptions: Sequence[Perception | None]) -> dict[str, torch.Tensor]:
        """The auxiliary words of each prompt, padded on the right; nothing at all when no prompt has any."""
        if all(perception is None for perception in perceptions):
            return {}
        return auxiliary([[] if perception is None else self._speak(perception) for perception in perceptions])

    def _speak(self, perception: Perception) -> list[int]:
        return speak_within(self._plain_ids, perception, self.max_aux_tokens, self.language)[1]

    def _plain_ids(self, text: str) -> list[int]:
        return self._plain(text, add_special_tokens=False)["input_ids"]

    def __getattr__(self, name: str):
        if name in ("processor", "_plain"):  # not there yet while this object is copied
            raise AttributeError(name)
        return getattr(self.processor, name)  # apply_chat_template, batch_decode, save_pretrained, ...
