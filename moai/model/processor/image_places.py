"""Images as tensors, and how many tokens each takes in a prompt: for an encoder of ours, the host's vision, or neither.

Knows: image processors of transformers. Which of the three a run has is chosen once, when its processor is made.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from PIL import Image
from torch import Tensor
from transformers import LlavaImageProcessor, ViTImageProcessor

from moai.errors import HostError, PromptError
from moai.images import read_image
from moai.model.processor.tiles import Tiles
from moai.model.run_folder import HOST_PROCESSOR

if TYPE_CHECKING:
    from transformers import BaseImageProcessor, PreTrainedTokenizerBase, ProcessorMixin

TYPES = "mm_token_type_ids"  # which tokens are images; the model makes them itself


def encoder_image_processor(
    size: int, fit: Literal["resize", "crop", "pad"], mean: Sequence[float], std: Sequence[float]
) -> BaseImageProcessor:
    """Build the image processor of an encoder of ours.

    Args:
        size: height and width in pixels.
        fit: ``"resize"`` changes an image's aspect; ``"crop"`` brings its shorter side to the size and cuts the middle
            out, as CLIP does; ``"pad"`` makes it square with the mean colour first, as LLaVA-1.5 does.
        mean, std: of each colour channel.
    """
    square = {"height": size, "width": size}
    if fit == "resize":
        return ViTImageProcessor(size=square, image_mean=mean, image_std=std)
    return LlavaImageProcessor(
        size={"shortest_edge": size}, crop_size=square, do_pad=fit == "pad", image_mean=mean, image_std=std
    )


class ImagePlaces(Protocol):
    """What the three kinds have in common."""

    begins: bool  # put what the tokenizer puts before any text before a prompt
    size: Any  # height and width in pixels of what is encoded, where images have one

    def placeholders(self, images: int) -> int:
        """Count the placeholders that a chat template writes for so many images."""
        return images

    def per_row(self, images: Any, rows: Sequence[Sequence[int]], image_token_id: int) -> list[int]:
        """Count the images that belong to each rendered prompt.

        Args:
            images: as they were given.
            rows: token ids of the prompts.
            image_token_id: the placeholder's id.
        """
        return [list(row).count(image_token_id) for row in rows]

    def encode(self, images: Sequence[Sequence[Any]]) -> tuple[list[list[int]], dict[str, Tensor]]:
        """Encode each row's images: the tokens that take the place of each placeholder, and the image tensors."""
        ...

    def stand_ins(self, images: int) -> list[list[int]]:
        """List the tokens that stand for each of so many images of a conversation; none is read for it."""
        ...

    def counts(self, images: Sequence[Any]) -> list[int]:
        """Count the tokens of each of a conversation's images."""
        ...

    def least(self, images: int) -> int:
        """Count the tokens that so many images of a conversation take at least; none is read for it."""
        ...

    def closing(self, following: Sequence[int]) -> int:
        """How many of the tokens after an image belong to it."""
        ...

    def fitted(self, image: Image.Image) -> Image.Image:
        """Cut or pad an image as an encoder of ours gets it; without one it stays as it is."""
        return image

    def pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Encode pictures, ``(N, 3, h, w)``, which only an encoder of ours can.

        Raises:
            HostError: there is none; it names the recipe key.
        """
        raise HostError("panoptic maps need an encoder of ours; set vision.kind to encoder, or leave the maps out")


class EncoderImagePlaces(ImagePlaces):
    """Every picture is resized to one size and takes the same number of tokens; an image is one picture, or several.

    Args:
        image_processor: of transformers.
        image_token_id: the placeholder's id.
        tokens: per picture.
        boundary: ids of the tokens that stand before and after each image; empty for none.
        tiles: into which pictures images are cut; left out, each is one.
    """

    begins = False  # a prompt begins as its template begins it

    def __init__(
        self,
        image_processor: BaseImageProcessor,
        image_token_id: int,
        tokens: int,
        boundary: Sequence[int] = (),
        tiles: Tiles | None = None,
    ) -> None:
        self.image_processor, self.image_token_id = image_processor, image_token_id
        self.tokens, self.boundary, self.tiles = tokens, list(boundary), tiles

    def encode(self, images: Sequence[Sequence[Any]]) -> tuple[list[list[int]], dict[str, Tensor]]:
        """Encode each row's images.

        Returns:
            the tokens that take the place of each image, in order; and ``pixel_values (N, 3, h, w)`` of all pictures.
        """
        places = [place for row in images for place in self.stand_ins(len(row))]
        pictures = [picture for row in images for picture in self._pictures(row)]
        if not pictures:
            return [], {}
        return places, {"pixel_values": self.pictures(pictures)}

    def stand_ins(self, images: int) -> list[list[int]]:
        """List the tokens that stand for each of so many images of a conversation."""
        first, last = self.boundary[:1], self.boundary[1:]
        return [[*first, *[self.image_token_id] * (self.tokens * n), *last] for n in self._counts(images)]

    def counts(self, images: Sequence[Any]) -> list[int]:
        """Count the tokens of each of a conversation's images; none is read for it."""
        return [self.tokens * pictures + len(self.boundary) for pictures in self._counts(len(images))]

    def least(self, images: int) -> int:
        """Count the tokens that so many images of a conversation take."""
        return sum(self.counts((None,) * images))

    def _counts(self, images: int) -> list[int]:
        return [1] * images if self.tiles is None else self.tiles.counts(images)

    def _pictures(self, row: Sequence[Any]) -> list[Image.Image]:
        """The pictures of a conversation's images, in the order of their places."""
        found: list[Image.Image] = []
        for given, count in zip(row, self._counts(len(row)), strict=True):
            image = read_image(given)
            cut = self.tiles is not None and count > 1
            found += self.tiles.cut(self.fitted(image), self.size, self.image_processor.resample) if cut else [image]
        return found

    def closing(self, following: Sequence[int]) -> int:
        """How many of the tokens after an image belong to it: the one that closes it, where there is one."""
        end = self.boundary[1:]
        return len(end) if end and list(following[: len(end)]) == end else 0

    def pictures(self, pictures: Sequence[Any]) -> Tensor:
        """Encode pictures, ``(N, 3, h, w)``."""
        return self.image_processor(pictures, return_tensors="pt")["pixel_values"]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        size = self.image_processor.crop_size if self._crops else self.image_processor.size
        return size["height"], size["width"]

    def fitted(self, image: Image.Image) -> Image.Image:
        """Cut or pad an image as the encoder gets it, so that its patches lie evenly on it; its size stays."""
        if not self._crops:
            return image
        pads = getattr(self.image_processor, "do_pad", False)
        side = (max if pads else min)(image.size)
        left, top = (side - image.width) // 2, (side - image.height) // 2
        square = Image.new("RGB", (side, side), tuple(int(255 * mean) for mean in self.image_processor.image_mean))
        square.paste(image, (left, top))
        return square

    @property
    def _crops(self) -> bool:
        return bool(getattr(self.image_processor, "do_center_crop", False))


class HostImagePlaces(ImagePlaces):
    """The host's own processor makes the tensors and says how many tokens an image takes.

    Args:
        processor: of transformers, as ``AutoProcessor.from_pretrained`` gives it for the host.
        placeholder: what a template writes for an image, where that is more than the processor's ``image_token``
            (Qwen2.5-VL: ``<|vision_start|><|image_pad|><|vision_end|>``).
    """

    begins = True
    size = None

    def __init__(self, processor: ProcessorMixin, placeholder: str | None = None) -> None:
        self.processor, self.image_token = processor, processor.image_token
        self.image_token_id = processor.tokenizer.convert_tokens_to_ids(processor.image_token)
        self.placeholder = placeholder or self.image_token

    def encode(self, images: Sequence[Sequence[Any]]) -> tuple[list[list[int]], dict[str, Tensor]]:
        """Encode each row's images.

        Returns:
            the tokens that take the place of each image, in order; and the host's image tensors (``pixel_values``,
            ``image_sizes``, ``image_grid_thw``, ..).

        Raises:
            HostError: the host's processor does not say what it puts in a placeholder's place.
        """
        shown = [[read_image(image) for image in row] for row in images if len(row)]
        if not shown:
            return [], {}
        data = self.processor(
            images=shown,
            text=[self.image_token * len(row) for row in shown],
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
        tokenizer = self.processor.tokenizer
        places = {piece: tokenizer(piece, add_special_tokens=False)["input_ids"] for piece in set(pieces)}
        about_text = {*tokenizer.model_input_names, TYPES}  # of the row that stood in for the prompt
        tensors = {name: value for name, value in data.items() if name not in about_text}
        return [places[piece] for piece in pieces], tensors

    def stand_ins(self, images: int) -> list[list[int]]:
        """List one token for each image: how many there are depends on sizes, and no image is read for this."""
        return [[self.image_token_id]] * images

    def counts(self, images: Sequence[Any]) -> list[int]:
        """Count the tokens of each image, which depend on its size."""
        return [len(place) for place in self.encode([images])[0]]

    def least(self, images: int) -> int:
        """Count one token for each image: how many there are depends on sizes, and no image is read for this."""
        return images

    def closing(self, following: Sequence[int]) -> int:
        """How many of the tokens after an image belong to it: those that close it, where the host has any."""
        return len(self._closing) if list(following[: len(self._closing)]) == self._closing else 0

    @cached_property
    def _closing(self) -> list[int]:
        text = self.placeholder.split(self.image_token)[-1]
        return self.processor.tokenizer(text, add_special_tokens=False)["input_ids"]

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> None:
        """Save the host's processor, which holds both, in a folder of its own."""
        self.processor.save_pretrained(folder / HOST_PROCESSOR)


class NoImagePlaces(ImagePlaces):
    """Images take no tokens: they are perceived, and a prompt is the same with an image and without one.

    The chat template writes nothing for an image, so that a placeholder in a prompt is always a mistake.
    """

    begins = False
    size = None

    def placeholders(self, images: int) -> int:
        """None: the chat template writes nothing for an image."""
        return 0

    def per_row(self, images: Any, rows: Sequence[Sequence[int]], image_token_id: int) -> list[int]:
        """Count the images that belong to each rendered prompt, which does not say it itself.

        Raises:
            PromptError: several prompts, and images that are no list with one item per prompt; or a placeholder.
        """
        if any(image_token_id in row for row in rows):
            raise PromptError("this run takes no images (vision.kind: none); leave the placeholders out of the prompt")
        if images is None:
            return [0] * len(rows)
        given = list(images) if isinstance(images, (list, tuple)) else [images]
        if len(rows) == 1:
            return [_count(given)]
        if len(given) != len(rows):
            raise PromptError(f"{len(given)} images for {len(rows)} prompts; give a list of images per prompt")
        return [_count(one) for one in given]

    def encode(self, images: Sequence[Sequence[Any]]) -> tuple[list[list[int]], dict[str, Tensor]]:
        """Neither tokens nor tensors; no image is read."""
        return [], {}

    def stand_ins(self, images: int) -> list[list[int]]:
        """No token for any image."""
        return [[]] * images

    def counts(self, images: Sequence[Any]) -> list[int]:
        """No token for any image."""
        return [0] * len(images)

    def least(self, images: int) -> int:
        """No token for any image."""
        return 0

    def closing(self, following: Sequence[int]) -> int:
        """No token."""
        return 0

    def save(self, folder: Path, tokenizer: PreTrainedTokenizerBase, chat_template: str | None) -> None:
        """Save the tokenizer with the chat template, which may be another than the host's."""
        saved = copy.copy(tokenizer)
        saved.chat_template = chat_template
        saved.save_pretrained(folder)


def _count(images: Any) -> int:
    """Count images in lists of any depth."""
    return sum(map(_count, images)) if isinstance(images, (list, tuple)) else 1
