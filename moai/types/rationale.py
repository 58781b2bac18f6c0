"""Build the two prompts of a chain of thought: first a description of the images, then the question with it.

Knows: conversations. The words are those of KOSMOS-1 (arXiv 2302.14045, section 4.6); whether the images stay in the
second prompt the paper does not say, and here they do.
"""

from __future__ import annotations

from moai.types.conversation import IMAGE, Conversation, Turn

DESCRIBE = "Introduce this picture in detail:"


def describe_images(conversation: Conversation, request: str = DESCRIBE) -> Conversation:
    """Build the first of the two calls: the last turn's images, and a request to describe them."""
    first = len(conversation.images) - conversation.turns[-1].images
    return Conversation.ask(request, conversation.images[first:])


def with_rationale(conversation: Conversation, rationale: str) -> Conversation:
    """Build the second call: the rationale stands before the last turn's text, and the images stay."""
    *before, last = conversation.turns
    first = next((at for at, part in enumerate(last.content) if part is not IMAGE), len(last.content))
    content = (*last.content[:first], f"{rationale.strip()} ", *last.content[first:])
    return Conversation((*before, Turn(last.role, content)), conversation.images)
