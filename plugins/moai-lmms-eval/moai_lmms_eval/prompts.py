"""Build the conversations of benchmarks, with any number of images, in reading order.

Knows: text and images; nothing of models. Benchmarks give either one text with images beside it, or messages; a
few-shot prompt is a conversation whose earlier turns are answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moai import IMAGE, Conversation, Turn, read_image
from moai.errors import PromptError

MARKER = "<image>"  # where an image belongs, in benchmarks that say so in their text

Shot = tuple[Sequence[Any], str, str]  # images, question, answer


def from_text(text: str, images: Iterable[Any] = ()) -> Conversation:
    """Build one question of a text and its images.

    An image stands at each ``<image>`` where the text has as many of them as there are images, else all stand before
    the text.

    Raises:
        ImageError: an image that cannot be read.
    """
    read = tuple(read_image(image) for image in images)
    pieces = text.split(MARKER)
    if not read or len(pieces) != len(read) + 1:
        return Conversation.ask(text, read)
    content = (pieces[0], *(part for piece in pieces[1:] for part in (IMAGE, piece)))
    return Conversation((Turn("user", content),), read)


def from_messages(messages: Sequence[Mapping[str, Any]]) -> Conversation:
    """Build a conversation of ``{"role", "content"}``, its items ``{"type": "text" | "image", "text" | "url"}``.

    Raises:
        PromptError: video or audio, or a conversation that does not end with the user's turn.
        ImageError: an image that cannot be read.
    """
    if not messages or messages[-1]["role"] != "user":
        raise PromptError("the benchmark's conversation does not end with the user's turn; add the question to it")
    found = Conversation.from_messages(messages)
    return Conversation(found.turns, tuple(read_image(image) for image in found.images))


def few_shot_messages(shots: Iterable[Shot], images: Sequence[Any], question: str) -> list[dict]:
    """Build the messages of a few-shot task, for its ``doc_to_messages``: solved examples, each with its images.

    Args:
        shots: images, question and answer of each example, in the order in which they are read.
        images, question: what is asked.
    """
    messages: list[dict] = []
    for shown, asked, answer in shots:
        messages += [_user(shown, asked), {"role": "assistant", "content": [{"type": "text", "text": answer}]}]
    return [*messages, _user(images, question)]


def with_answer(conversation: Conversation, answer: str) -> Conversation:
    """Build the conversation with an answer as its last turn."""
    return Conversation((*conversation.turns, Turn("assistant", answer)), conversation.images)


def _user(images: Sequence[Any], text: str) -> dict:
    items: list[dict] = [{"type": "image", "url": image} for image in images]
    return {"role": "user", "content": [*items, {"type": "text", "text": text}]}
