"""The processor: conversations, images and perceptions in; tensors out.

Knows: its three encoders, one each of prompts, images and perceptions, and how it is saved and loaded.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoProcessor, AutoTokenizer, BatchFeature, ProcessorMixin

from moai.assets.resolver import resolve
from moai.images import read_image
from moai.model.config import MoaiConfig
from moai.model.processor.batch import Row, build_batch, check_length, packed_rows
from moai.model.processor.experts import build_perceiver
from moai.model.processor.image_places import EncoderImagePlaces, HostImagePlaces, ImagePlaces, NoImagePlaces
from moai.model.processor.in_process import Running
from moai.model.processor.perceptions import PerceptionEncoder, Perceptions
from moai.model.processor.prompts import Encoded, PromptEncoder
from moai.model.processor.rendered import read_rendered, refuse_control_tokens
from moai.model.processor.tiles import Tiles
from moai.model.run_folder import HOST_PROCESSOR, write_manifest
from moai.model.run_format import check_format
from moai.perception.running.settings import usable_experts
from moai.perception.running.time_limit import TIME_LIMIT
from moai.types import Conversation, Perception

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

    from moai.perception.running.perceiver import Perceiver
    from moai.perception.words.token_budget import Verbalization

SETTINGS = (
    "image_token", "image_tokens", "image_boundary", "tiles", "placeholder", "experts", "expert_options",
    "expert_versions", "time_limit", "language", "style", "inject", "say_nothing_found", "merge_findings",
    "panoptic_map", "max_aux_tokens", "max_length",
)  # fmt: skip
HOST_CLASS = "host_processor_class"  # in processor_config.json, only of a run with the host's own vision


class MoaiProcessor(ProcessorMixin):
    """Tokenizer and image processor of one run, with the experts that perceive its images.

    Args:
        image_processor, tokenizer: of transformers; without an image processor images are perceived and take no tokens.
        host_processor: instead of both, the processor of a vision-language model whose own vision is used.
        chat_template: Jinja text; left out, the host processor's.
        image_token: the placeholder's text; ``image_tokens`` of them stand for one picture that is encoded.
        image_boundary: the special tokens that stand before and after each image of an encoder; None for none.
        tiles: arguments of :class:`~moai.model.processor.tiles.Tiles`, by which an image is several pictures.
        placeholder: what a template writes for an image, where that is more than the host processor's image token.
        experts, expert_options: names and options of the experts that run when no perceptions are given.
        expert_versions: what the run was trained with, of ``record_experts``.
        time_limit: seconds that an expert may take for an image, as in ``Perceiver``; None: no limit.
        language, style: of the verbalization.
        inject: how words reach the model: ``"mixers"`` as auxiliary tokens, or ``"prompt"`` as plain text after the
            image, uncompressed: the baseline that the mixers have to beat, at many times the tokens.
        say_nothing_found: say so where an expert looked for objects and found none.
        panoptic_map: hand over the panoptic map when a panoptic expert answered; needs an encoder of ours.
        max_aux_tokens: of the verbalized perception; a longer one loses its least important facts.
        merge_findings: write each thing of an image once; see ``moai.perception.words.merging``.
        max_length: the host's context; a longer prompt is a :class:`PromptError`.
    """

    def __init__(
        self,
        image_processor: BaseImageProcessor | None = None,
        tokenizer: PreTrainedTokenizerBase | None = None,
        chat_template: str | None = None,
        host_processor: ProcessorMixin | None = None,
        image_token: str = "<image>",
        image_tokens: int = 9,
        image_boundary: Sequence[str] | None = None,
        tiles: dict[str, Any] | None = None,
        placeholder: str | None = None,
        experts: Sequence[str] = (),
        expert_options: dict[str, dict[str, Any]] | None = None,
        expert_versions: dict[str, dict[str, str]] | None = None,
        time_limit: float | None = TIME_LIMIT,
        language: str = "en",
        style: str = "paper",
        inject: str = "mixers",
        say_nothing_found: bool = False,
        panoptic_map: bool = True,
        max_aux_tokens: int = 512,
        merge_findings: bool = False,
        max_length: int | None = None,
        **kwargs: Any,
    ) -> None:
        if host_processor is not None:
            image_processor, tokenizer = host_processor.image_processor, host_processor.tokenizer
            image_token, image_tokens, panoptic_map = host_processor.image_token, 1, False
            host_processor.chat_template = chat_template = chat_template or host_processor.chat_template
        self.host_processor, self.placeholder = host_processor, placeholder
        self.image_token, self.image_tokens = image_token, image_tokens
        self.image_boundary, self.tiles = image_boundary, tiles
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.experts = list(experts)
        # A recipe that leaves an expert out may inherit its options.
        self.expert_options = {name: value for name, value in (expert_options or {}).items() if name in self.experts}
        self.expert_versions = {name: value for name, value in (expert_versions or {}).items() if name in self.experts}
        self.language, self.style, self.inject, self.panoptic_map = language, style, inject, panoptic_map
        self.say_nothing_found, self.merge_findings = say_nothing_found, merge_findings
        self.max_aux_tokens, self.max_length, self.time_limit = max_aux_tokens, max_length, time_limit
        super().__init__(image_processor, tokenizer, chat_template=chat_template)
        self.tokenizer.padding_side = "left"  # generation continues at the right end; the attribute is not saved
        self._running = Running()

    def __repr__(self) -> str:
        # transformers spells a processor out on every load, for a log; its own way copies the tokenizer.
        return f"{type(self).__name__}({type(self.tokenizer).__name__}, experts={self.experts})"

    # The encoders ------------------------------------------------------------------------------------------------

    @property
    def images(self) -> ImagePlaces:
        """The encoder of images: one size for an encoder of ours, the host's own processor, or none."""
        settings = (self.image_tokens, self.tiles, str(self.image_boundary), self.placeholder)
        return self._running.get("images", settings, self._make_images)

    @property
    def prompts(self) -> PromptEncoder:
        """The encoder of conversations, by the tokenizer and the chat template that are set."""
        return self._running.get("prompts", (id(self.tokenizer), self.chat_template), self._make_prompts)

    @property
    def perceptions(self) -> PerceptionEncoder:
        """The encoder of perceptions, by the settings that are set."""
        limits = (self.max_aux_tokens, self.merge_findings, self.say_nothing_found)
        settings = (self.language, self.style, self.inject, self.panoptic_map, *limits)
        return self._running.get(
            "perceptions", settings, partial(PerceptionEncoder, self.plain_ids, self.images, *settings)
        )

    def _make_images(self) -> ImagePlaces:
        if self.host_processor is not None:
            return HostImagePlaces(self.host_processor, self.placeholder)
        if self.image_processor is None:
            return NoImagePlaces()
        boundary = [self.tokenizer.convert_tokens_to_ids(token) for token in self.image_boundary or ()]
        tiles = None if self.tiles is None else Tiles(**self.tiles)
        return EncoderImagePlaces(self.image_processor, self.image_token_id, self.image_tokens, boundary, tiles)

    def _make_prompts(self) -> PromptEncoder:
        return PromptEncoder(
            self.tokenizer, self.chat_template, self.image_token_id, self.images.begins, self.images.placeholders(1) > 0
        )

    @property
    def perceiver(self) -> Perceiver:
        """The experts that perceive images; built on first use, set it to share a cache or other experts."""
        if self._running.perceiver is None:
            self._running.perceiver = build_perceiver(self, self.installed_experts())
        return self._running.perceiver

    @perceiver.setter
    def perceiver(self, perceiver: Perceiver) -> None:
        self._running.perceiver = perceiver

    def installed_experts(self) -> list[str]:
        """Name those of the run's experts that are installed; warn of missing ones, and of other versions."""
        return usable_experts(self.experts, self.expert_versions, self.expert_options)

    # Batches -----------------------------------------------------------------------------------------------------

    def batch(
        self,
        conversations: Sequence[Conversation],
        perceptions: Sequence[Perceptions] | None = None,
        *,
        labels: bool = False,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> BatchFeature:
        """Build model inputs of conversations.

        Args:
            conversations: without ``labels`` up to where the next answer begins; with, including their answers.
            perceptions: for each conversation one per image, ``None`` entries switch perception off; left out, the
                experts run. A conversation without images may have perceptions too: its sample's truths.
            labels: add the labels that training learns, and pad on the right instead of the left.
            groups: conversations that are packed into one row each, by their numbers; left out, each has its own row.

        Returns:
            ``input_ids``, ``attention_mask``, ``prompt_mask`` and perhaps ``labels``, ``(B, S)``; the image tensors, of
            an encoder of ours ``pixel_values (N, 3, h, w)``; ``aux_input_ids`` and ``aux_attention_mask`` ``(B, A)``;
            with a panoptic expert ``aux_pixel_values (B, M, 3, h, w)`` and ``aux_pixel_mask (B, M)``.

        Raises:
            PromptError: a conversation longer than the host's context, or perceptions that do not match the images.
            ImageError: an image that cannot be read.
        """
        encoded = [self.encode(conversation, labels=labels) for conversation in conversations]
        images = [conversation.images for conversation in conversations]
        if perceptions is None:
            images = [[read_image(image) for image in row] for row in images]
            perceptions = self.perceive(images)
        places = [self.prompts.words_at(c.turns) if self.inject == "prompt" else None for c in conversations]
        rows = [Row(*parts) for parts in zip(encoded, images, perceptions, places, strict=True)]
        return self._built(rows if groups is None else packed_rows(rows, groups), labels)

    def encode(self, conversation: Conversation, *, labels: bool = False) -> Encoded:
        """Encode one conversation with one token per image; encodings are cached.

        Raises:
            PromptError: longer than the host's context.
        """
        turns, loss = conversation.turns, conversation.loss
        found = self.prompts.answered(turns, loss) if labels else self.prompts.prompt(turns)
        check_length(self._length(found, conversation), self.max_length)
        return found

    def lengths(self, conversations: Sequence[Conversation], *, labels: bool = True) -> list[int]:
        """Count the tokens of each conversation; with the host's own vision an image counts as one."""
        return [self._length(self.encode(c, labels=labels), c) for c in conversations]

    def perceive(self, images: Sequence[Sequence[Any]]) -> list[list[Perception]]:
        """Run the experts on each row's images; without experts every row is empty."""
        flat = [image for row in images for image in row]
        if not flat or not self.experts:
            return [[] for _ in images]
        found = iter(self.perceiver.perceive(flat))
        return [[next(found) for _ in row] for row in images]

    def _built(self, rows: Sequence[Row], labels: bool = False) -> BatchFeature:
        ids = {"image_token_id": self.image_token_id, "pad_token_id": self.tokenizer.pad_token_id or 0}
        limits = {"max_length": self.max_length, "labels": labels}
        return BatchFeature(build_batch(rows, self.images, self.perceptions, **ids, **limits))

    def _length(self, encoded: Encoded, conversation: Conversation) -> int:
        images = len(conversation.images)
        return len(encoded.ids) + self.images.least(images) - self.images.placeholders(images)

    # Text --------------------------------------------------------------------------------------------------------

    def plain_ids(self, text: str) -> list[int]:
        """Encode untrusted text: control tokens and the placeholder become the characters they are written with."""
        return self.prompts.plain_ids(text)

    def prompt_ids(self, question: str, images: int = 1) -> list[int]:
        """Encode one question with ``images`` images before it, up to where the answer begins.

        Raises:
            PromptError: longer than the host's context.
        """
        encoded = self.encode(Conversation.ask(question, (None,) * images))
        places = iter(self.images.stand_ins(images))
        return [token for one in encoded.ids for token in (next(places) if one == self.image_token_id else [one])]

    def verbalize(self, perception: Perception | Sequence[Perception]) -> Verbalization:
        """Verbalize a perception, or one per image, as the model gets it: the text, and the facts that do not fit."""
        return self.perceptions.verbalize([perception] if isinstance(perception, Perception) else perception)

    def decode_answers(self, ids: torch.Tensor) -> list[str]:
        """Decode generated tokens ``(B, T)``, control tokens left out."""
        return [text.strip() for text in self.tokenizer.batch_decode(ids, skip_special_tokens=True)]

    # As transformers calls a processor ---------------------------------------------------------------------------

    def __call__(
        self,
        images: Any = None,
        text: str | list[str] | None = None,
        perceptions: Sequence[Perception | None] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Turn prompts that a chat template has written into model inputs, as transformers' pipelines ask.

        Control tokens in ``text`` are control tokens, as in transformers: use :meth:`batch`, or
        ``apply_chat_template(.., tokenize=True)``, for what users write.

        Arguments and errors are those of :func:`moai.model.processor.rendered.read_rendered`.
        """
        given = read_rendered(self, images, text, perceptions, kwargs)
        return BatchFeature(self.images.encode([given])[1]) if text is None else self._built(given)

    def apply_chat_template(self, conversation: Any, *args: Any, tokenize: bool = False, **kwargs: Any) -> Any:
        """As in transformers, but text of users never becomes a control token.

        Raises:
            PromptError: without ``tokenize``, a text that holds a control token: in a string nothing would tell it from
                those of the template.
        """
        if tokenize:
            kwargs.setdefault("sanitize_control_tokens", not kwargs.get("return_assistant_tokens_mask"))
        else:
            refuse_control_tokens(self.tokenizer, conversation)
        return super().apply_chat_template(conversation, *args, tokenize=tokenize, **kwargs)

    @property
    def model_input_names(self) -> list[str]:
        """Everything that a batch may hold."""
        about = ["input_ids", "attention_mask", "prompt_mask", "aux_input_ids", "aux_attention_mask"]
        if self.image_processor is None:
            return about
        own = self.host_processor.model_input_names if self.host_processor is not None else ["pixel_values"]
        return list(dict.fromkeys([*about, *own, "aux_pixel_values", "aux_pixel_mask"]))

    # Saving and loading ------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Our settings, and the image processor's where it is not the host's."""
        saved = {"processor_class": type(self).__name__, **{name: getattr(self, name) for name in SETTINGS}}
        if self.host_processor is not None:
            return {**saved, HOST_CLASS: type(self.host_processor).__name__}
        return saved if self.image_processor is None else {**saved, "image_processor": self.image_processor.to_dict()}

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """Save beside the model, and bring the folder's manifest up to date."""
        folder = Path(save_directory)
        if isinstance(self.images, EncoderImagePlaces):
            files = super().save_pretrained(save_directory, **kwargs)
        else:
            self.images.save(folder, self.tokenizer, self.chat_template)
            self.to_json_file(folder / "processor_config.json")
            files = [str(folder / "processor_config.json")]
        write_manifest(folder)
        return files

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: str | Path, **kwargs: Any) -> MoaiProcessor:
        """Load from a run folder, or a hub id of one."""
        where = pretrained_model_name_or_path
        check_format(where)
        saved, _ = cls.get_processor_dict(where, **kwargs)
        if HOST_CLASS not in saved and "image_processor" in saved:
            return super().from_pretrained(where, **kwargs)
        folder = resolve(str(where), kwargs.get("revision"))
        settings = {name: saved[name] for name in SETTINGS if name in saved}
        if HOST_CLASS in saved:
            return cls(host_processor=AutoProcessor.from_pretrained(folder / HOST_PROCESSOR), **settings)
        tokenizer = AutoTokenizer.from_pretrained(folder)
        return cls(tokenizer=tokenizer, chat_template=tokenizer.chat_template, **settings)

    def check_argument_for_proper_class(self, argument_name: str, argument: Any) -> Any:
        """As in transformers, which knows no processor without an image processor."""
        return argument if argument is None else super().check_argument_for_proper_class(argument_name, argument)

    @classmethod
    def get_attributes(cls) -> list[str]:
        """The parts that transformers loads; a host's processor is ours to load."""
        return ["image_processor", "tokenizer"]


AutoProcessor.register(MoaiConfig, MoaiProcessor, exist_ok=True)
