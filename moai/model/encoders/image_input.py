"""The image input of a model: an encoder and a connector of ours, the host's own vision, or none.

Knows: tensors and modules, and how transformers' vision-language models take images. Which of the three a model has is
chosen once, when it is built; nothing else in the library asks.

Scale: image features stand among the words as the connector gives them, at the scale of what the decoder reads. Hosts
of the Gemma family scale words inside their embedding, which image features do not pass; hosts of the Granite family
multiply whatever comes in, words and images, so there image features are divided by that factor first.
"""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor, nn

from moai.errors import HostError, PromptError
from moai.model.arguments import positions
from moai.model.config import MoaiConfig
from moai.model.encoders.connectors import TextInput, leave_out
from moai.model.encoders.image_text import image_texts
from moai.model.encoders.vision import VisionEncoder, build_vision, vision_arguments
from moai.model.mixer.gather import gather_tokens
from moai.model.mixer.graft import half_precision
from moai.model.mixer.inputs import Prompt
from moai.plugins import registry

ENCODED = "mm_encoder_outputs"  # images that transformers' generation has had the host encode before the prefill
TYPES = "mm_token_type_ids"  # which tokens are images; some hosts number positions by it


class ImageInput(nn.Module):
    """What all kinds have in common."""

    kind: str
    has_tokens = True  # images have tokens in the sequence, which mixers read and change

    def __init__(self, host: nn.Module, image_token_id: int) -> None:
        super().__init__()
        self._host = (host,)  # in a tuple: registered once, by the model
        self.image_token_id = image_token_id

    @property
    def host(self) -> nn.Module:
        """The model's host."""
        return self._host[0]

    def adapters(self) -> dict[str, nn.Module]:
        """Name the parts that train."""
        return {}

    def encode_maps(self, pixels: Tensor) -> Tensor:
        """Encode panoptic maps ``(N, 3, h, w)``, which only an encoder of ours can.

        Raises:
            HostError: there is none; it names the recipe key.
        """
        raise HostError("panoptic maps need an encoder of ours (vision.kind: encoder); leave the maps out")

    def check(self, prompt: Prompt, given: bool) -> None:
        """Refuse placeholders that no image stands for.

        Raises:
            PromptError: says how many.
        """
        # A window of one token is a generated one, which never is a placeholder, and asking a GPU takes time.
        if given or prompt.inputs_embeds is not None or prompt.is_image is None or prompt.is_image.shape[1] == 1:
            return
        if bool(prompt.is_image.any()):
            raise PromptError(
                f"the prompt has {int(prompt.is_image.sum())} image placeholders and no pixel_values; "
                "pass the images too, or leave the placeholders out"
            )


class EncoderImages(ImageInput):
    """A frozen vision encoder and a connector of ours give the image tokens.

    Args:
        host: for its word embeddings.
        vision, connector: of ``build_vision``, and of the registry.
        image_token_id: the placeholder's id.
        image_tokens: per image.
        factors: of ``moai.model.host.checks.embedding_factors``.
    """

    kind = "encoder"
    can_drop = True  # image features may be zeroed, for a host that then has the words alone

    def __init__(
        self,
        host: nn.Module,
        vision: VisionEncoder,
        connector: nn.Module,
        *,
        image_token_id: int,
        image_tokens: int,
        factors: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__(host, image_token_id)
        self.vision, self.connector, self.image_tokens = vision, connector, image_tokens
        self.word_factor, self.embedding_factor = factors

    def adapters(self) -> dict[str, nn.Module]:
        """Name the parts that train."""
        return {"connector": self.connector}

    def encode(
        self, pixels: Tensor, input_ids: Tensor, *, words: Tensor | None = None, keep: Tensor | None = None
    ) -> Tensor:
        """Encode ``pixels (N, 3, h, w)``, in the order of the placeholders, as ``(B, M, D)`` padded per row.

        Args:
            pixels: of all rows' images.
            input_ids: ``(B, S)``.
            words: ``(B, S)`` bool, true at the prompt's words, for connectors that read the text of an image's turn.
            keep: ``(B,)`` bool; rows that are false get zero vision features. Before the connector, never after it: a
                zero embedding stays zero through every layer, and its gradient is multiplied by each norm's
                ``1 / sqrt(eps)``.

        Raises:
            PromptError: the placeholders in ``input_ids`` do not match the number of images, or the connector reads
                text and an image's turn has none.
        """
        counts = (input_ids == self.image_token_id).sum(dim=1)
        output = self.vision(pixels)
        if keep is not None:
            kept = keep.repeat_interleave(counts // self.image_tokens)
            patches = output.patches * kept[:, None, None].to(output.patches.dtype)
            token = None if output.class_token is None else output.class_token * kept[:, None].to(patches.dtype)
            output = output._replace(patches=patches, class_token=token)
        if self.reads_text:
            self._check_count(counts, len(pixels), self.image_tokens)
        features = self._connected(output, self._text(input_ids, words))
        self._check_count(counts, *features.shape[:2])
        rows = features.flatten(0, 1).split(counts.tolist())
        return nn.utils.rnn.pad_sequence(list(rows), batch_first=True)

    def encode_maps(self, pixels: Tensor) -> Tensor:
        """Encode panoptic maps ``(N, 3, h, w)`` as ``(N, tokens, D)`` in fp32.

        A connector that reads text gets none: a map is perception, which is the same for every question about its
        image and serves all turns.
        """
        return self._connected(self.vision(pixels), None).float()

    @property
    def reads_text(self) -> bool:
        """Whether the connector reads the text of an image's turn."""
        return getattr(self.connector, "reads_text", False)

    def _connected(self, output, text: TextInput | None) -> Tensor:
        with half_precision(self.host.get_input_embeddings().weight):
            return self.connector(output, text) if self.reads_text else self.connector(output)

    def _text(self, input_ids: Tensor, words: Tensor | None) -> TextInput | None:
        if not self.reads_text:
            return None
        is_image = input_ids == self.image_token_id
        words = ~is_image if words is None else words
        return image_texts(self.host.get_input_embeddings(), is_image, words, input_ids, self.image_tokens)

    def _check_count(self, counts: Tensor, images: int, tokens: int) -> None:
        if int(counts.sum()) != images * tokens:
            raise PromptError(
                f"{int(counts.sum())} image placeholders for {images} images of {tokens} tokens; "
                "build the inputs with MoaiProcessor"
            )

    def host_inputs(
        self, prompt: Prompt, pixels: Tensor | None, features: Tensor | None, keep: Tensor | None, given: dict[str, Any]
    ) -> dict[str, Any]:
        """Build the host's own arguments: the prompt embedded with its images."""
        embeds = prompt.inputs_embeds
        if embeds is None:
            self.check(prompt, pixels is not None or features is not None)
            if pixels is not None and features is None:
                features = self.encode(pixels, prompt.input_ids, words=prompt.words, keep=keep)
            embeds = self._embed(prompt, features)
        image = {"image_positions": prompt.is_image} if getattr(self.host, "takes_image_positions", False) else {}
        return {"inputs_embeds": embeds, **image}

    def position_inputs(self, input_ids, attention_mask, window: int, past: int, given: dict) -> dict[str, Any]:
        """Number positions so that padding does not count."""
        return {"position_ids": positions(attention_mask, window)}

    def encode_once(self, input_ids: Tensor, past: int, given: dict[str, Any]) -> None:
        """Before generation: replace ``pixel_values`` in ``given`` by the features of the images after the cache."""
        pixels = given.pop("pixel_values", None)
        if pixels is None:
            is_image = input_ids[:, past:] == self.image_token_id
            prompt = Prompt(input_ids, given.get("inputs_embeds"), is_image, None)
            return self.check(prompt, given.get("image_features") is not None)
        is_image = input_ids == self.image_token_id
        starts = is_image.nonzero()[:: self.image_tokens, 1]  # one column per image, row by row
        if past and len(starts) == len(pixels):  # another number: a mistake, or already only those after the cache
            pixels = pixels[starts >= past]
        words = given["prompt_mask"][:, past:].bool() & ~is_image[:, past:]
        given["image_features"] = self.encode(pixels, input_ids[:, past:], words=words) if len(pixels) else None

    def generating(self, own: Any) -> Any:
        """Which object prepares generation: the model itself."""
        return own

    def _embed(self, prompt: Prompt, features: Tensor | None) -> Tensor:
        # The placeholder's id may lie outside the host's vocabulary; it is never looked up.
        words = self.host.get_input_embeddings()(prompt.input_ids.masked_fill(prompt.is_image, 0))
        if self.word_factor != 1.0:
            words = words * self.word_factor
        if features is None or features.shape[1] == 0:
            return words
        order = (prompt.is_image.long().cumsum(dim=1) - 1).clamp(min=0)  # k-th placeholder of its row
        order = order.clamp(max=features.shape[1] - 1)
        if self.embedding_factor != 1.0:
            features = features / self.embedding_factor
        images = gather_tokens(features.to(words.dtype), order)
        return torch.where(prompt.is_image[..., None], images, words)


class HostImages(ImageInput):
    """The host's own vision tower and projector give the image tokens; pixels are handed on to it."""

    kind = "host"
    can_drop = False

    def __init__(self, host: nn.Module, image_token_id: int) -> None:
        super().__init__(host, image_token_id)
        self._typed = TYPES in inspect.signature(host.forward).parameters

    def host_inputs(
        self, prompt: Prompt, pixels: Tensor | None, features: Tensor | None, keep: Tensor | None, given: dict[str, Any]
    ) -> dict[str, Any]:
        """Hand the prompt on as it came; ``given`` are the forward's further arguments.

        Raises:
            HostError: image dropout, which needs an encoder of ours.
        """
        if keep is not None and not bool(keep.all()):
            raise HostError("image dropout needs an encoder of ours (vision.kind: encoder); set image_dropout to 0")
        self.check(prompt, pixels is not None or bool(given.get(ENCODED)))
        ids = None if prompt.inputs_embeds is not None else prompt.input_ids
        known = {"input_ids": ids, "inputs_embeds": prompt.inputs_embeds, "pixel_values": pixels}
        return {name: value for name, value in known.items() if value is not None}

    def position_inputs(self, input_ids, attention_mask, window: int, past: int, given: dict) -> dict[str, Any]:
        """Say which tokens are images, for a host that numbers positions by it.

        Without it Qwen's positions would be those of text, and nothing would report that they are wrong.
        """
        if past or input_ids is None or not self._typed or given.get(TYPES) is not None:
            return {}
        return {TYPES: (input_ids == self.image_token_id).long()}

    def encode_once(self, input_ids: Tensor, past: int, given: dict[str, Any]) -> None:
        """Before generation: leave ``pixel_values`` for the host, which encodes them further on."""
        if self._typed and given.get(TYPES) is None:
            given[TYPES] = (input_ids == self.image_token_id).long()

    def generating(self, own: Any) -> Any:
        """Which object prepares generation: the host."""
        return self.host


class NoImages(ImageInput):
    """Images have no tokens: experts perceive them, and the host gets words alone.

    A run of words needs neither encoder nor connector, and one whose connector never trained must not give its output
    to the host.
    """

    kind = "none"
    has_tokens = False
    can_drop = True  # there are never any image features

    def host_inputs(
        self, prompt: Prompt, pixels: Tensor | None, features: Tensor | None, keep: Tensor | None, given: dict[str, Any]
    ) -> dict[str, Any]:
        """Hand the words on to the host.

        Raises:
            PromptError: pixels, image features or image placeholders.
        """
        self._refuse(pixels, features)
        self.check(prompt, False)
        if prompt.inputs_embeds is not None:
            return {"inputs_embeds": prompt.inputs_embeds}
        return {"input_ids": prompt.input_ids}

    def position_inputs(self, input_ids, attention_mask, window: int, past: int, given: dict) -> dict[str, Any]:
        """Number positions so that padding does not count."""
        return {"position_ids": positions(attention_mask, window)}

    def encode_once(self, input_ids: Tensor, past: int, given: dict[str, Any]) -> None:
        """Before generation: refuse images, which have no place here."""
        self._refuse(given.get("pixel_values"), given.get("image_features"))
        is_image = input_ids[:, past:] == self.image_token_id
        self.check(Prompt(input_ids, given.get("inputs_embeds"), is_image, None), False)

    def generating(self, own: Any) -> Any:
        """Which object prepares generation: the model itself."""
        return own

    def _refuse(self, *images: Tensor | None) -> None:
        if any(one is not None for one in images):
            raise PromptError(
                "this run takes no images (vision.kind: none): experts perceive them, and the model gets their words; "
                "build the inputs with MoaiProcessor"
            )


def image_input(
    config: MoaiConfig, host: nn.Module, vision: VisionEncoder | None, factors: tuple[float, float]
) -> ImageInput:
    """Build the image input that a configuration names, around a loaded encoder where there is one."""
    for kind in (HostImages, NoImages):
        if config.vision["kind"] == kind.kind:
            return kind(host, config.image_token_id)
    vision = build_vision(**vision_arguments(config)) if vision is None else vision
    kind, options = config.connector["kind"], config.connector.get("options") or {}
    width = host.get_input_embeddings().embedding_dim
    connector = registry().get_connector(kind)(vision.width, width, **options)
    leave_out(connector, kind, config.connector.get("left_out") or ())
    tokens = {"image_token_id": config.image_token_id, "image_tokens": config.image_tokens}
    return EncoderImages(host, vision, connector, **tokens, factors=factors)
