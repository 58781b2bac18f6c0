"""Answer questions about grey pictures: what a model knows of an answer from the question alone.

Knows: conversations and whatever answers them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from PIL import Image

from moai.types import Conversation

GREY = (127, 127, 127)


class BlankImages:
    """Stand for a model that gets a grey picture of the same size in place of each image; else it is the model.

    Args:
        answerer: whatever answers conversations; all of its methods take them first.
    """

    def __init__(self, answerer: Any) -> None:
        self._answerer = answerer

    def __getattr__(self, name: str) -> Callable[..., Any]:
        method = getattr(self._answerer, name)
        return lambda conversations, *given, **options: method([blank(c) for c in conversations], *given, **options)


def blank(conversation: Conversation) -> Conversation:
    """Return a conversation with a grey picture in place of each of its images, which are read already."""
    images = tuple(Image.new("RGB", image.size, GREY) for image in conversation.images)
    return Conversation(conversation.turns, images, conversation.loss)
