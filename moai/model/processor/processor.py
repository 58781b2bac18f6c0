"""The processor: images, prompts and perceptions in; tensors out.

Knows: tokenizers, image processors, and, unlike most of this folder, perceptions: here the two halves meet. How prompts
become tokens is in ``prompts``, how perceptions do in ``spoken_perceptions``.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from moai.errors import PromptError
from moai.images import read_image
from moai.model.processor.prompts import Prompts
from moai.model.processor.verbalized import SpokenPerceptions
from moai.model.run_folder import write_manifest
from moai.model.run_format import check_format
from moai.types import Perception

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

    from moai.perception.running.perceiver import Perceiver


class MoaiProcessor(Prompts, SpokenPerceptions, ProcessorMixin):
    """Tokenizer and image processor of one run, with the experts that look at its images.

    Args:
        image_processor, tokenizer: of transformers.
        image_token: the placeholder's text; ``image_tokens`` of them stand for one image.
        experts, expert_options: names and options of the experts that ``__call__`` runs when no perceptions are given.
        language, style: of the verbalization.
        through: how words reach the model: ``"mixers"`` as auxiliary tokens, or ``"prompt"`` as plain text behind the
            image, uncompressed: the baseline that the mixers have to beat, at many times the tokens.
        panoptic_map: hand over the panoptic map when a panoptic expert answered.
        max_aux_tokens: of the verbalized perception; a longer one loses its least important facts.
        max_length: the host's context; a longer prompt is a :class:`PromptError`.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        image_tokens: int = 9,
        experts: Sequence[str] = (),
        expert_options: dict[str, dict[str, Any]] | None = None,
        language: str = "en",
        style: str = "paper",
        through: str = "mixers",
        panoptic_map: bool = True,
        max_aux_tokens: int = 512,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        self.image_token, self.image_tokens = image_token, image_tokens
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.experts = list(experts)
        # A recipe that leaves an expert out may inherit its options.
        self.expert_options = {name: value for name, value in (expert_options or {}).items() if name in self.experts}
        self.language, self.style, self.through, self.panoptic_map = language, style, through, panoptic_map
        self.max_aux_tokens, self.max_length = max_aux_tokens, max_length
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.tokenizer.padding_side = "left"  # generation continues at the right end; the attribute is not saved
        self._running = _Running()

    def __repr__(self) -> str:
        # transformers spells a processor out on every load, for a log; its own way copies the tokenizer.
        return f"{type(self).__name__}({type(self.tokenizer).__name__}, experts={self.experts})"

    @property
    def perceiver(self) -> Perceiver:
        """The experts that look at images; built on first use, set it to share a cache or other experts."""
        if self._running.perceiver is None:
            from moai.perception.running.perceiver import Perceiver

            self._running.perceiver = Perceiver(self.experts, options=self.expert_options)
        return self._running.perceiver

    @perceiver.setter
    def perceiver(self, perceiver: Perceiver) -> None:
        self._running.perceiver = perceiver

    def pixels(self, images: Sequence[Any]) -> torch.Tensor:
        """Read images (paths, bytes, arrays, pictures) into ``(N, 3, h, w)``."""
        return self.image_processor([read_image(image) for image in images], return_tensors="pt")["pixel_values"]

    def place(
        self, rows: list[list[int]], images: Sequence[Sequence[Any]]
    ) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
        """Rows of token ids with room for their images, and the images as the model takes them.

        Args:
            rows: of ``prompt_ids`` or ``conversation_ids``.
            images: each row's own, in the order of their placeholders.
        """
        shown = _flatten(images)
        return rows, {"pixel_values": self.pixels(shown)} if shown else {}

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        perceptions: Sequence[Perception | None] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn prompts into model inputs.

        Args:
            images: all images, in the order of their placeholders (nested lists are flattened).
            text: one prompt or several, with one placeholder per image.
            perceptions: one per image; ``None`` entries switch perception off. Left out, the experts look.

        Returns:
            ``input_ids``, ``attention_mask``, ``prompt_mask`` ``(B, S)``, padded on the left; ``pixel_values``
            ``(N, 3, h, w)``; ``aux_input_ids`` and ``aux_attention_mask`` ``(B, A)``; with a panoptic expert
            ``aux_pixel_values (B, M, 3, h, w)`` and ``aux_pixel_mask (B, M)``.

        Raises:
            PromptError: a prompt longer than the host's context, or perceptions that do not match the images.
            ImageError: an image that cannot be read.
        """
        images = None if images is None else _read(images if isinstance(images, (list, tuple)) else [images])
        kwargs.setdefault("padding", not isinstance(text, str))
        kwargs["return_tensors"] = "pt" if kwargs.get("return_tensors") is None else kwargs["return_tensors"]
        data, counts = self._encoded(images, text, kwargs)
        if "input_ids" not in data:
            return data
        self._check_length(data["input_ids"].shape[1])
        if images:
            if perceptions is None and self.experts:
                perceptions = self.perceiver.perceive(_flatten(images))
            rows = _per_row(perceptions, counts)
            data.update(self.aux_inputs(rows))
            if self.through == "prompt":
                data.update(self._reworded(data, rows))
        data["prompt_mask"] = data["attention_mask"].bool()
        return data

    def _encoded(
        self, images: list[Any] | None, text: str | list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[BatchFeature, list[int]]:
        """Text and images as tensors, and how many images each row has."""
        images = None if images is None else _flatten(images)
        data = super().__call__(images=images, text=text, **kwargs)
        is_image = data["input_ids"] == self.image_token_id if "input_ids" in data else torch.zeros(0, 1)
        return data, (is_image.sum(dim=1) // self.image_tokens).tolist()

    def _reworded(self, data: BatchFeature, perceptions: list[list[Perception]]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` with the words in them, padded on the left."""
        ids = [row[kept.bool()].tolist() for row, kept in zip(data["input_ids"], data["attention_mask"], strict=True)]
        ids = [self.with_words(row, seen) for row, seen in zip(ids, perceptions, strict=True)]
        return self.tokenizer.pad({"input_ids": ids}, padding_side="left", return_tensors="pt")

    @property
    def model_input_names(self) -> list[str]:
        """Everything that ``__call__`` may return."""
        return ["input_ids", "attention_mask", "prompt_mask", "pixel_values", "aux_input_ids", "aux_attention_mask",
                "aux_pixel_values", "aux_pixel_mask"]  # fmt: skip

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> MoaiProcessor:
        """As in transformers; of a run whose host sees for itself, its :class:`SeeingProcessor`."""
        from moai.model.processor.native_vision import SeeingProcessor, of_a_seeing_host  # it builds on this class

        where = pretrained_model_name_or_path
        check_format(where)
        if cls is MoaiProcessor and of_a_seeing_host(where, **kwargs):
            return SeeingProcessor.from_pretrained(where, **kwargs)
        return super().from_pretrained(where, **kwargs)

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Save beside the model, and bring the folder's manifest up to date."""
        files = super().save_pretrained(save_directory, **kwargs)
        write_manifest(save_directory)
        return files


class _Running:
    """The loaded experts. A copied or pickled processor loads its own: engines and threads cannot be copied."""

    def __init__(self) -> None:
        self.perceiver: Perceiver | None = None

    def __reduce__(self) -> tuple[type[_Running], tuple[()]]:
        return _Running, ()


def _read(images: Sequence[Any]) -> list[Any]:
    """Pictures in the lists in which they were given."""
    return [_read(item) if isinstance(item, (list, tuple)) else read_image(item) for item in images]


def _flatten(images: Any) -> list[Any]:
    nested = isinstance(images, (list, tuple))
    return [image for item in images for image in _flatten(item)] if nested else [images]


def _per_row(perceptions: Sequence[Perception | None] | None, counts: list[int]) -> list[list[Perception]]:
    """Deal out one perception per image to the rows, by their number of images."""
    if perceptions is None:
        return [[] for _ in counts]
    if len(perceptions) != sum(counts):
        raise PromptError(f"{len(perceptions)} perceptions for {sum(counts)} images; give one per image, or None")
    rows, start = [], 0
    for count in counts:
        rows.append([p for p in perceptions[start : start + count] if p is not None])
        start += count
    return rows


from moai.model.config import MoaiConfig  # noqa: E402  (registration needs the configuration class)

AutoProcessor.register(MoaiConfig, MoaiProcessor, exist_ok=True)
