"""Prompts that a chat template has rendered to strings, as transformers' pipelines hand them over.

Knows: messages, strings with placeholders, and what of transformers' processor calls makes no sense here.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from moai.errors import PromptError
from moai.images import read_image
from moai.model.processor.batch import Row
from moai.model.processor.prompts import IGNORED, Encoded

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from moai.model.processor.processor import MoaiProcessor
    from moai.types import Perception


def read_rendered(
    processor: MoaiProcessor,
    images: Any,
    text: str | Sequence[str] | None,
    perceptions: Sequence[Perception | None] | None,
    options: Mapping[str, Any],
) -> list[Any]:
    """Encode rendered prompts as rows of a batch; without text, read the images alone.

    Args:
        processor: of the run.
        images: all images, in the order of their placeholders (nested lists are flattened).
        text: one prompt or several, with one placeholder per image.
        perceptions: one per image; ``None`` entries switch perception off. Left out, the experts run.
        options: ``add_special_tokens`` and ``sanitize_control_tokens`` of the tokenizer.

    Raises:
        PromptError: truncation, another type of tensors, or numbers of images and perceptions that do not match.
        ImageError: an image that cannot be read.
    """
    if options.get("truncation"):
        raise PromptError("truncation would cut images and answers; shorten the text instead")
    if options.get("return_tensors", "pt") not in ("pt", None):
        raise PromptError("moai makes torch tensors; leave return_tensors out, or pass 'pt'")
    flat = [] if images is None else [read_image(image) for image in _flatten(images)]
    if text is None:
        return flat
    ids = _tokenized(processor, [text] if isinstance(text, str) else list(text), options)
    counts = processor.images.per_row(images, ids, processor.image_token_id)
    if sum(counts) != len(flat):
        raise PromptError(f"{sum(counts)} image placeholders for {len(flat)} images; write one for each image")
    if perceptions is not None and len(perceptions) != len(flat):
        raise PromptError(f"{len(perceptions)} perceptions for {len(flat)} images; give one per image, or None")
    own = _dealt(flat, counts)
    found = processor.perceive(own) if perceptions is None else _dealt(perceptions, counts)
    encoded = [Encoded(tuple(row), (IGNORED,) * len(row), (True,) * len(row)) for row in ids]
    return [Row(*parts) for parts in zip(encoded, own, found, strict=True)]


def refuse_control_tokens(tokenizer: PreTrainedTokenizerBase, messages: Any) -> None:
    """Refuse messages whose text holds a control token: in a string nothing would tell it from the template's own.

    Raises:
        PromptError: names the token and the safe way.
    """
    special = [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    for text in _texts(messages):
        found = next((token for token in special if token in text), None)
        if found is not None:
            raise PromptError(
                f"the conversation holds '{found}', which would become a control token in a string; "
                "pass tokenize=True, or use processor.batch"
            )


def _tokenized(processor: MoaiProcessor, texts: list[str], options: Mapping[str, Any]) -> list[list[int]]:
    sanitized, added = bool(options.get("sanitize_control_tokens")), options.get("add_special_tokens", True)
    # A tokenizer that splits what users wrote adds nothing to it, not even what every text begins with.
    own = {"sanitize_control_tokens": True, "add_special_tokens": False} if sanitized else {}
    ids = processor.tokenizer(texts, **{"add_special_tokens": added, **own})["input_ids"]
    return [processor.prompts.begun(row) for row in ids] if sanitized and added else ids


def _flatten(images: Any) -> list[Any]:
    nested = isinstance(images, (list, tuple))
    return [image for item in images for image in _flatten(item)] if nested else [images]


def _dealt(items: Sequence[Any], counts: Sequence[int]) -> list[list[Any]]:
    """Deal items out to rows, by the number that each row has."""
    following = iter(items)
    return [[next(following) for _ in range(count)] for count in counts]


def _texts(messages: Any) -> list[str]:
    """All texts that users wrote in messages, at any depth."""
    if isinstance(messages, Mapping):
        content = messages.get("content", messages.get("text", ""))
        return [content] if isinstance(content, str) else _texts(content)
    if isinstance(messages, (list, tuple)):
        return [text for item in messages for text in _texts(item)]
    return []
