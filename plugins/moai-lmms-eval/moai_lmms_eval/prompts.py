"""Prompts of benchmarks: conversations with any number of pictures, in the order in which they are read.

Knows: text and pictures; nothing of models. Benchmarks hand over either one text with pictures beside it, or a
conversation; a few-shot prompt is a conversation whose earlier turns are answered.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from PIL.Image import Image

from moai import read_image
from moai.errors import PromptError

MARKER = "<image>"  # where a picture belongs, in benchmarks that say so in their text
DESCRIBE = "Introduce this picture in detail:"  # KOSMOS-1's first question of two (arXiv 2302.14045, chain of thought)
CORRECT = "Is it correct?"  # its question about a Raven matrix
_COUNTS = {1: "one", 2: "two", 3: "three", 4: "four", 5: "five", 6: "six", 7: "seven", 8: "eight"}
_PICTURE = {"type": "image"}

Shot = tuple[Sequence[Any], str, str]  # pictures, question, answer


@dataclass(frozen=True)
class Prompt:
    """Turns as chat templates take them, the last one the user's; ``images`` in the order of their items."""

    turns: tuple[dict, ...]
    images: tuple[Image, ...] = ()

    @property
    def question(self) -> str:
        """The text of the last turn."""
        return "".join(item["text"] for item in self.turns[-1]["content"] if item["type"] == "text")


def from_text(text: str, images: Iterable[Any] = ()) -> Prompt:
    """One text and its pictures: where the text has as many ``<image>`` as there are pictures, else in front."""
    pictures = tuple(read_image(image) for image in images)
    pieces = text.split(MARKER)
    if not pictures or len(pieces) != len(pictures) + 1:
        content = [_PICTURE] * len(pictures) + _said(text)
    else:
        content = _said(pieces[0])
        for piece in pieces[1:]:
            content += [_PICTURE, *_said(piece)]
    return Prompt(({"role": "user", "content": content},), pictures)


def from_messages(messages: Sequence[Mapping[str, Any]]) -> Prompt:
    """A conversation of ``{"role", "content"}``, its items ``{"type": "text" | "image", "text" | "url"}``.

    Raises:
        PromptError: video or audio, or a conversation that does not end with the user's turn.
        ImageError: a picture that cannot be read.
    """
    turns, pictures = [], []
    for message in messages:
        items = message["content"]
        content: list[dict] = []
        for item in [{"type": "text", "text": items}] if isinstance(items, str) else items:
            if item["type"] == "text":
                content += _said(item["text"])
            elif item["type"] == "image":
                content.append(_PICTURE)
                pictures.append(read_image(item["url"] if "url" in item else item["image"]))
            else:
                raise PromptError(f"the benchmark shows {item['type']}, and moai reads text and images; leave it out")
        turns.append({"role": message["role"], "content": content})
    if not turns or turns[-1]["role"] != "user":
        raise PromptError("the benchmark's conversation does not end with the user's turn; nobody has asked anything")
    return Prompt(tuple(turns), tuple(pictures))


def few_shot_messages(shots: Iterable[Shot], images: Sequence[Any], question: str) -> list[dict]:
    """The conversation of a few-shot task, for its ``doc_to_messages``: solved examples, each with its pictures.

    Args:
        shots: pictures, question and answer of each example, in the order in which they are read.
        images, question: what is asked.
    """
    messages: list[dict] = []
    for pictures, asked, answer in shots:
        messages += [_user(pictures, asked), {"role": "assistant", "content": _said(answer)}]
    return [*messages, _user(images, question)]


def describe(prompt: Prompt, request: str = DESCRIBE) -> Prompt:
    """The first of chain of thought's two calls: the pictures of the last turn, and a request to describe them."""
    own = sum(item["type"] == "image" for item in prompt.turns[-1]["content"])
    content = [_PICTURE] * own + _said(request)
    return Prompt(({"role": "user", "content": content},), prompt.images[len(prompt.images) - own :])


def with_rationale(prompt: Prompt, rationale: str) -> Prompt:
    """The second call: the rationale stands before the last turn's text, and the pictures stay."""
    content = list(prompt.turns[-1]["content"])
    first = next((at for at, item in enumerate(content) if item["type"] == "text"), len(content))
    content.insert(first, {"type": "text", "text": f"{rationale.strip()} "})
    return Prompt((*prompt.turns[:-1], {"role": "user", "content": content}), prompt.images)


def raven_text(images: int) -> str:
    """KOSMOS-1's text for a matrix of ``images`` pictures and one candidate, with a marker for each of them."""
    return f"Here are {_COUNTS.get(images, images)} images:{MARKER * images} The following image is:{MARKER} {CORRECT}"


def raven_prompts(matrix: Sequence[Any], candidates: Sequence[Any]) -> list[Prompt]:
    """One prompt per candidate for a Raven matrix; the answer is the candidate whose "Yes" is likeliest.

    Args:
        matrix: the pictures that are there, row by row.
        candidates: the pictures of which one completes it.
    """
    return [from_text(raven_text(len(matrix)), [*matrix, candidate]) for candidate in candidates]


def _said(text: str) -> list[dict]:
    return [{"type": "text", "text": text}] if text else []


def _user(images: Sequence[Any], text: str) -> dict:
    return {"role": "user", "content": [{"type": "image", "url": image} for image in images] + _said(text)}
