"""The processor around a vision-language host: the host's own, plus prompts and the perception in words.

Knows: the host's processor, and, as ``processing`` does, perceptions. The host's processor makes the pixels and says
how many image tokens an image takes; they are put into prompts as token ids, so that here, too, what users and images
say never becomes a control token.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import AutoProcessor, BatchFeature, ProcessorMixin

from moai.assets.resolver import resolve
from moai.errors import HostError, PromptError
from moai.images import read_image
from moai.model.host.native_vision import TYPES
from moai.model.processor.processor import MoaiProcessor
from moai.model.run_folder import HOST_PROCESSOR, write_manifest
from moai.types import Perception

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase

SETTINGS = ("experts", "expert_options", "language", "style", "through", "max_aux_tokens", "max_length", "placeholder")
ADDED = "add_special_tokens"
MARK = "host_processor_class"  # the key of processor_config.json that only such runs have


class SeeingProcessor(MoaiProcessor):
    """Wraps the processor of a vision-language model.

    Args:
        processor: of transformers, as ``AutoProcessor.from_pretrained`` gives it for the host; its tokenizer is set to
            pad on the left, and its chat template to ``chat_template``.
        chat_template: left out, the processor's own.
        placeholder: what a template writes for an image, where that is more than the processor's ``image_token``
            (Qwen2.5-VL: ``<|vision_start|><|image_pad|><|vision_end|>``).
        settings: ``experts``, ``expert_options``, ``language``, ``style``, ``through``, ``max_aux_tokens`` and
            ``max_length`` of :class:`MoaiProcessor`. There is no panoptic map: it needs an encoder of ours.
    """

    def __init__(
        self,
        processor: ProcessorMixin,
        chat_template: str | None = None,
        placeholder: str | None = None,
        **settings: Any,
    ) -> None:
        self.processor = processor
        if chat_template is not None:
            processor.chat_template = chat_template
        super().__init__(
            tokenizer=processor.tokenizer,
            chat_template=processor.chat_template,
            image_token=processor.image_token,
            image_tokens=1,  # in a conversation's ids an image is one token, until ``place`` makes room for it
            panoptic_map=False,
            **settings,
        )
        self.placeholder = placeholder or self.image_token

    @property
    def tokenizer(self) -> PreTrainedTokenizerBase:
        """The host's."""
        return self.processor.tokenizer

    @property
    def image_processor(self) -> BaseImageProcessor:
        """The host's."""
        return self.processor.image_processor

    def conversation_ids(self, turns: list[dict[str, Any]], **kwargs: Any) -> list[int]:
        """As :meth:`MoaiProcessor.conversation_ids`, one token per image, begun as the host's processor begins.

        It has the tokenizer begin a prompt whose template does not do so itself (LLaVA-1.5).

        Raises:
            PromptError: there is no chat template; a tokenizer's own would not know of images.
        """
        if self.chat_template is None:
            raise PromptError(
                "this host's processor has no chat template; pass chat_template= to SeeingProcessor, "
                "or set host.chat_template in the recipe"
            )
        ids = super().conversation_ids(turns, **kwargs)
        return ids if ids[: len(self._start)] == self._start else [*self._start, *ids]

    @cached_property
    def _start(self) -> list[int]:
        """Ids that the tokenizer puts before any text."""
        whole, text = (self.tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
        return whole[: whole.index(text[0])]

    def place(
        self, rows: list[list[int]], images: Sequence[Sequence[Any]]
    ) -> tuple[list[list[int]], dict[str, Tensor]]:
        """Rows of token ids with as many image tokens as the host wants, and the images as it takes them.

        Args:
            rows: of ``prompt_ids`` or ``conversation_ids``: one token per image.
            images: each row's own, in the order of their placeholders.

        Returns:
            the rows, and the host's image tensors (``pixel_values``, ``image_sizes``, ``image_grid_thw``, ..).

        Raises:
            PromptError: a row with another number of placeholders than images, or longer than the host's context.
            HostError: the host's processor does not say what it puts in a placeholder's place.
        """
        for row, own in zip(rows, images, strict=True):
            if row.count(self.image_token_id) != len(own):
                raise PromptError(
                    f"{row.count(self.image_token_id)} image placeholders for {len(own)} images; "
                    "host.chat_template must write one for each image"
                )
        shown = [[read_image(image) for image in own] for own in images if len(own)]
        if not shown:
            return rows, {}
        data = self.processor(
            images=shown,
            text=[self.image_token * len(own) for own in shown],
            padding=True,
            return_tensors="pt",
            return_text_replacement_offsets=True,
        )
        found = data.pop("text_replacement_offsets", [])
        pieces = [piece["replacement"] for row in found for piece in row]
        if len(pieces) != sum(map(len, shown)):
            raise HostError(
                f"{type(self.processor).__name__} does not say how many tokens an image takes, so prompts cannot be "
                "built for it; use a host such as LLaVA, LLaVA-OneVision or Qwen2.5-VL"
            )
        room = {piece: self.tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in set(pieces)}
        following = iter(pieces)
        placed = []
        for row in rows:
            parts = [room[next(following)] if token == self.image_token_id else [token] for token in row]
            placed.append([token for part in parts for token in part])
            self._check_length(len(placed[-1]))
        about_text = {*self.tokenizer.model_input_names, TYPES}  # of the row that stood in for the prompt
        return placed, {name: value for name, value in data.items() if name not in about_text}

    def with_words(self, ids: list[int], perceptions: Sequence[Perception]) -> list[int]:
        """As :meth:`MoaiProcessor.with_words`, behind the token that closes the image where the host has one."""
        made = super().with_words(ids, perceptions)
        if len(made) == len(ids):
            return made
        behind = len(ids) - ids[::-1].index(self.image_token_id)
        closing = self._closing if ids[behind : behind + len(self._closing)] == self._closing else []
        words = made[behind : behind + len(made) - len(ids)]
        return [*ids[:behind], *closing, *words, *ids[behind + len(closing) :]]

    @cached_property
    def _closing(self) -> list[int]:
        return self.tokenizer(self.placeholder.split(self.image_token)[-1], add_special_tokens=False)["input_ids"]

    def _encoded(
        self, images: list[Any] | None, text: str | list[str] | None, kwargs: dict[str, Any]
    ) -> tuple[BatchFeature, list[int]]:
        """What the host's processor makes of both, and how many images each row has."""
        texts = [text] if isinstance(text, str) else text
        if images and texts and not isinstance(images[0], list) and not kwargs.get("sanitize_control_tokens"):
            images = self._per_prompt(images, texts)
        # A tokenizer that splits what users wrote adds nothing to it, not even what every text begins with.
        begin = bool(texts and self._start and kwargs.get("sanitize_control_tokens")) and kwargs.get(ADDED, True)
        kwargs = {**kwargs, ADDED: False} if begin else kwargs
        data = self.processor(images=images, text=texts, return_text_replacement_offsets=True, **kwargs)
        counts = [len(row) for row in data.pop("text_replacement_offsets", [])]
        if begin:
            pairs = zip(data["input_ids"], data["attention_mask"], strict=True)
            rows = [[*self._start, *ids[kept.bool()].tolist()] for ids, kept in pairs]
            data.update(self.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt"))
        if begin or self.through == "prompt":
            data.pop(TYPES, None)  # too short by now, or for the words to come; the model makes its own
        return data, counts

    def _per_prompt(self, images: list[Any], texts: Sequence[str]) -> list[Any]:
        """Images in lists, one per prompt: several in one prompt may be treated otherwise than one each of several."""
        counts = [text.count(self.image_token) for text in texts]
        if sum(counts) != len(images):
            return images  # the host's processor says what is wrong
        following = iter(images)
        return [[next(following) for _ in range(count)] for count in counts if count]

    @property
    def model_input_names(self) -> list[str]:
        """Everything that ``__call__`` may return."""
        return [*self.processor.model_input_names, "prompt_mask", "aux_input_ids", "aux_attention_mask"]

    # Saving and loading ------------------------------------------------------------------------------------------

    @classmethod
    def get_attributes(cls) -> list[str]:
        """None: tokenizer and image processor are the host's, and saved with its processor."""
        return []

    def to_dict(self) -> dict[str, Any]:
        """Our settings; the class that transformers knows is :class:`MoaiProcessor`, which finds this one."""
        settings = {name: getattr(self, name) for name in SETTINGS}
        return {"processor_class": MoaiProcessor.__name__, MARK: type(self.processor).__name__, **settings}

    def save_pretrained(self, save_directory: str | Path, **kwargs: Any) -> list[str]:
        """The host's processor in a folder of its own, our settings beside the model, and the manifest."""
        folder = Path(save_directory)
        self.processor.save_pretrained(folder / HOST_PROCESSOR)
        self.to_json_file(folder / "processor_config.json")
        write_manifest(folder)
        return [str(folder / "processor_config.json")]

    @classmethod
    def from_pretrained(
        cls, pretrained_model_name_or_path: str | Path, *, revision: str | None = None, **kwargs: Any
    ) -> SeeingProcessor:
        """Load from a run folder, or a hub id of one; ``kwargs`` of the Auto classes mean nothing here."""
        folder = resolve(str(pretrained_model_name_or_path), revision)
        saved, _ = cls.get_processor_dict(folder)
        return cls(AutoProcessor.from_pretrained(folder / HOST_PROCESSOR), **{name: saved[name] for name in SETTINGS})


def of_a_seeing_host(where: str | Path, **kwargs: Any) -> bool:
    """True for a run folder, or a hub id, whose processor is a :class:`SeeingProcessor`."""
    return MARK in ProcessorMixin.get_processor_dict(where, **kwargs)[0]
