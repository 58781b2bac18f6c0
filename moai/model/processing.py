"""The processor: images, prompts and perceptions in; tensors out.

Knows: tokenizers, image processors, and, unlike the rest of this folder, perceptions: here the two halves meet.
Text from images, questions and answers is never read as control tokens; it is tokenised by a tokenizer of its own that
splits them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
import torch
from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from moai.errors import PromptError
from moai.images import read_image
from moai.model.checkpoint import write_manifest
from moai.model.plain_words import auxiliary, plain_tokenizer
from moai.perception.budget import Spoken, speak_within
from moai.perception.panoptic_map import render_map
from moai.perception.types import Perception, merge


class MoaiProcessor(ProcessorMixin):
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
        image_processor=None,
        tokenizer=None,
        chat_template=None,
        image_token: str = "<image>",
        image_tokens: int = 9,
        experts: Sequence[str] = (),
        expert_options: dict | None = None,
        language: str = "en",
        style: str = "paper",
        through: str = "mixers",
        panoptic_map: bool = True,
        max_aux_tokens: int = 512,
        max_length: int | None = None,
        **kwargs,
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

    @cached_property
    def _plain(self):
        return plain_tokenizer(self.tokenizer)  # on first use: to copy a tokenizer takes longer than to load a host

    @property
    def perceiver(self):
        """The experts that look at images; built on first use, set it to share a cache or other experts."""
        if self._running.perceiver is None:
            from moai.perception.run import Perceiver

            self._running.perceiver = Perceiver(self.experts, options=self.expert_options)
        return self._running.perceiver

    @perceiver.setter
    def perceiver(self, perceiver) -> None:
        self._running.perceiver = perceiver

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of untrusted text: control tokens and the placeholder come out as the characters they are."""
        return self._plain(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, question: str, images: int = 1) -> list[int]:
        """Token ids of one question about ``images`` images, up to where the answer begins.

        Raises:
            PromptError: longer than the host's context.
        """
        ids = self.conversation_ids(self._user_turn(question, images), add_generation_prompt=True)
        self._check_length(len(ids))
        return ids

    def answer_ids(self, question: str, answer: str, images: int = 1) -> list[int]:
        """Token ids of the answer to ``prompt_ids(question)``, with the token that ends it."""
        return self.reply_ids(self._user_turn(question, images), self.prompt_ids(question, images), answer)

    def reply_ids(self, turns: list[dict], prompt: list[int], answer: str) -> list[int]:
        """Token ids of the assistant's ``answer`` behind ``turns``, as the template writes it, with the end of turn.

        ``prompt`` is ``conversation_ids(turns, add_generation_prompt=True)``.
        """
        turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole, eos = self.conversation_ids([*turns, turn]), self.tokenizer.eos_token_id
        if whole[: len(prompt)] != prompt or eos not in whole[len(prompt) :]:
            return [*self.plain_ids(answer), eos]  # the template does not continue its own prompt
        return whole[len(prompt) : whole.index(eos, len(prompt)) + 1]

    def _user_turn(self, question: str, images: int) -> list[dict]:
        return [{"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": question}]}]

    def conversation_ids(self, turns: list[dict], **kwargs) -> list[int]:
        """Token ids of a conversation, images as their placeholders; what users wrote never becomes control tokens.

        Args:
            turns: as transformers' chat templates take them.
            kwargs: of ``apply_chat_template``, such as ``add_generation_prompt``.
        """
        ids = self.tokenizer.apply_chat_template(
            turns,
            chat_template=self.chat_template,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            **kwargs,
        )
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * (self.image_tokens if token == self.image_token_id else 1)
        return expanded

    def pixels(self, images: Sequence) -> torch.Tensor:
        """Read images (paths, bytes, arrays, pictures) into ``(N, 3, h, w)``."""
        return self.image_processor([read_image(image) for image in images], return_tensors="pt")["pixel_values"]

    def place(self, rows: list[list[int]], images: Sequence[Sequence]) -> tuple[list[list[int]], dict]:
        """Rows of token ids with room for their images, and the images as the model takes them.

        Args:
            rows: of ``prompt_ids`` or ``conversation_ids``.
            images: each row's own, in the order of their placeholders.
        """
        shown = _flatten(images)
        return rows, {"pixel_values": self.pixels(shown)} if shown else {}

    def __call__(
        self, images=None, text=None, perceptions: Sequence[Perception | None] | None = None, **kwargs
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

    def _encoded(self, images: list | None, text, kwargs: dict) -> tuple[BatchFeature, list[int]]:
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

    def aux_inputs(self, perceptions: Sequence[Sequence[Perception]]) -> dict[str, torch.Tensor]:
        """Auxiliary tensors for the perceptions of each row's images; rows without any are masked out.

        Returns nothing at all when no row has a perception.
        """
        if not any(perceptions) or self.through == "prompt":
            return {}
        rows = [self._speak(merge(row)) if row else [] for row in perceptions]
        return {**auxiliary(rows), **self._maps(perceptions)}

    def aux_size(self, perception: Perception) -> tuple[int, bool]:
        """How many words, in tokens, and whether a panoptic map ``aux_inputs`` would hand over; nothing is drawn."""
        if self.through == "prompt":
            return 0, False
        return len(self._speak(perception)), self.panoptic_map and perception.has_panoptic

    def with_words(self, ids: list[int], perceptions: Sequence[Perception]) -> list[int]:
        """``ids`` of a prompt with its images' perceptions in words behind the last image; for ``through="prompt"``.

        Anywhere else the ids come back as they are.

        Raises:
            PromptError: longer than the host's context.
        """
        if self.through != "prompt" or not perceptions:
            return ids
        behind = len(ids) - ids[::-1].index(self.image_token_id)
        words = self._speak(merge(perceptions)) + self.plain_ids("\n")
        self._check_length(len(ids) + len(words))
        return [*ids[:behind], *words, *ids[behind:]]

    def spoken(self, perception: Perception) -> Spoken:
        """A perception in words as the model is given it, and the facts that did not fit into ``max_aux_tokens``."""
        return self._within(perception)[0]

    def plain_spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of ``plain_ids(text)`` begins and ends in ``text``, in characters.

        Raises:
            PromptError: the tokenizer does not know.
        """
        if not self._plain.is_fast:
            raise PromptError(f"{type(self._plain).__name__} does not say which characters a token is; nothing to show")
        return self._plain(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def _speak(self, perception: Perception) -> list[int]:
        """Token ids of the words; what is longer than ``max_aux_tokens`` loses whole facts, never half a box."""
        return self._within(perception)[1]

    def _within(self, perception: Perception) -> tuple[Spoken, list[int]]:
        return speak_within(self.plain_ids, perception, self.max_aux_tokens, self.language, self.style)

    def _maps(self, perceptions: Sequence[Sequence[Perception]]) -> dict[str, torch.Tensor]:
        shown = [[p for p in row if p.has_panoptic] if self.panoptic_map else [] for row in perceptions]
        most = max(len(row) for row in shown)
        if most == 0:
            return {}
        height, width = self.image_processor.size["height"], self.image_processor.size["width"]
        blank = np.zeros((height, width, 3), dtype=np.uint8)
        pictures = [[render_map(p, height, width) for p in row] + [blank] * (most - len(row)) for row in shown]
        pixels = self.image_processor([picture for row in pictures for picture in row], return_tensors="pt")[
            "pixel_values"
        ]
        mask = torch.tensor([[index < len(row) for index in range(most)] for row in shown])
        return {"aux_pixel_values": pixels.unflatten(0, (len(shown), most)), "aux_pixel_mask": mask}

    def _check_length(self, length: int) -> None:
        if self.max_length is not None and length >= self.max_length:
            raise PromptError(
                f"the prompt has {length} tokens and the host's context holds {self.max_length}; "
                "shorten the question or use fewer images"
            )

    def replace_image_token(self, image_inputs: dict, image_idx: int, **kwargs) -> str:
        """One placeholder in a prompt becomes ``image_tokens`` of them."""
        return self.image_token * self.image_tokens

    def apply_chat_template(self, conversation, *args, tokenize: bool = False, **kwargs):
        """As in transformers, but user text never becomes control tokens (``sanitize_control_tokens``)."""
        if tokenize:
            kwargs.setdefault("sanitize_control_tokens", not kwargs.get("return_assistant_tokens_mask"))
        return super().apply_chat_template(conversation, *args, tokenize=tokenize, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Everything that ``__call__`` may return."""
        return ["input_ids", "attention_mask", "prompt_mask", "pixel_values", "aux_input_ids", "aux_attention_mask",
                "aux_pixel_values", "aux_pixel_mask"]  # fmt: skip

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path, **kwargs) -> MoaiProcessor:
        """As in transformers; of a run whose host sees for itself, its :class:`SeeingProcessor`."""
        from moai.model.seeing_processing import SeeingProcessor, of_a_seeing_host  # it builds on this class

        where = pretrained_model_name_or_path
        if cls is MoaiProcessor and of_a_seeing_host(where, **kwargs):
            return SeeingProcessor.from_pretrained(where, **kwargs)
        return super().from_pretrained(where, **kwargs)

    def save_pretrained(self, save_directory, **kwargs):
        """Save beside the model, and bring the folder's manifest up to date."""
        files = super().save_pretrained(save_directory, **kwargs)
        write_manifest(save_directory)
        return files


class _Running:
    """The loaded experts. A copied or pickled processor loads its own: engines and threads cannot be copied."""

    def __init__(self) -> None:
        self.perceiver = None

    def __reduce__(self) -> tuple:
        return _Running, ()


def _read(images: list | tuple) -> list:
    """Pictures in the lists in which they were given."""
    return [_read(item) if isinstance(item, (list, tuple)) else read_image(item) for item in images]


def _flatten(images) -> list:
    nested = isinstance(images, (list, tuple))
    return [image for item in images for image in _flatten(item)] if nested else [images]


def _per_row(perceptions, counts: list[int]) -> list[list[Perception]]:
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
