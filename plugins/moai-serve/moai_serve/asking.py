"""From a request's body to what the model is asked: a conversation with pictures, and how to answer it.

Knows: the run's processor, whose own length check decides what is too long. Runs in a thread beside the event loop.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import jinja2
from pydantic_core import from_json

from moai import IMAGE, Conversation, Turn
from moai.errors import ExpertError, PromptError
from moai_serve.errors import refused
from moai_serve.fields import ChatRequest, Message, read_fields
from moai_serve.pictures import read_pictures
from moai_serve.settings import Settings

if TYPE_CHECKING:
    from moai import Augmented

MAX_ITEMS = 100_000  # commas and brackets of a body: a short body of millions of empty lists fills the memory
LETTERS = 32  # characters that a token stands for at most, in what is worth tokenizing


@dataclass(frozen=True)
class Sampling:
    """Say how one answer is drawn.

    Attributes:
        temperature: 0 takes the likeliest token.
        top_p: draw from the likeliest tokens that together have this probability.
        seed: of the first choice; the others' follow from it.
        stop: texts that end the answer, and are no part of it.
        max_tokens: the longest answer.
        logprobs: report the log probability of each token.
        top_logprobs: and of this many likeliest ones at each place.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int = 0
    stop: tuple[str, ...] = ()
    max_tokens: int = 16
    logprobs: bool = False
    top_logprobs: int = 0


@dataclass(frozen=True)
class Asked:
    """Hold what one request asks.

    Attributes:
        conversation: up to where the answer begins; its images are decoded.
        sampling: of its answers.
        choices: how many answers.
        experts: that perceive; None means all of the run's.
        stream: send each token as it comes.
        usage: end a stream with token counts.
        masks: send masks of the perception back.
    """

    conversation: Conversation
    sampling: Sampling
    choices: int = 1
    experts: tuple[str, ...] | None = None
    stream: bool = False
    usage: bool = False
    masks: bool = False


def read_request(body: bytes, run: Augmented, settings: Settings, hold: Callable[[int], None]) -> Asked:
    """Read and check a body.

    Args:
        body: JSON.
        run: of the model that is served.
        settings: with all limits.
        hold: called with the bytes that pictures will take.

    Raises:
        ApiError: what is wrong with it, in a sentence.
    """
    fields = read_fields(_json(body))
    if fields.model != settings.name:
        raise refused(f"this server has no such model; it has '{settings.name}'", "model_not_found", "model", 404)
    _check_counts(fields, settings)
    urls = [p.image_url.url for m in fields.messages if not isinstance(m.content, str) for p in m.content
            if p.type == "image_url"]  # fmt: skip
    limit = run.processor.max_length
    _check_letters(fields.messages, limit)
    conversation = _conversation(fields.messages, [None] * len(urls))
    room = _room(run, conversation)  # before a picture is decoded: a prompt that is too long should cost nothing
    experts = _experts(run, fields.moai.experts)
    pictures = read_pictures(urls, settings.max_pixels, hold)
    return Asked(
        Conversation(conversation.turns, tuple(pictures)),
        _sampling(fields, settings, room),
        fields.n or 1,
        experts,
        bool(fields.stream),
        bool(fields.stream_options and fields.stream_options.include_usage),
        fields.moai.masks,
    )


def _json(body: bytes) -> object:
    if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_ITEMS:
        raise refused(f"the body has more than {MAX_ITEMS:,} items; send less", "body_too_large", status=413)
    try:
        return from_json(body, allow_inf_nan=False, cache_strings=False)
    except ValueError as error:
        raise refused(f"the body is no JSON: {error}", "invalid_json") from error


def _check_counts(fields: ChatRequest, settings: Settings) -> None:
    if len(fields.messages) > settings.max_turns:
        raise refused(
            f"the conversation has {len(fields.messages)} messages and the limit is {settings.max_turns}; "
            "leave earlier ones out",
            "too_many_turns", "messages",
        )  # fmt: skip
    parts = [part for m in fields.messages if not isinstance(m.content, str) for part in m.content]
    images = sum(part.type == "image_url" for part in parts)
    if images > settings.max_images:
        raise refused(
            f"the conversation has {images} pictures and the limit is {settings.max_images}; leave some out",
            "too_many_images", "messages",
        )  # fmt: skip
    if (fields.n or 1) > settings.max_choices:
        raise refused(f"n is {fields.n} and the limit is {settings.max_choices}; ask again for more", "invalid_value",
                      "n")  # fmt: skip
    wanted = fields.max_completion_tokens or fields.max_tokens or 1
    if wanted > settings.max_tokens:
        raise refused(
            f"an answer of {wanted:,} tokens is asked for and the limit is {settings.max_tokens:,}; ask for fewer",
            "too_many_tokens", "max_tokens",
        )  # fmt: skip


def _check_letters(messages: list[Message], context: int | None) -> None:
    """Refuse a text that is far too long before it is tokenized."""
    letters = sum(
        len(message.content)
        if isinstance(message.content, str)
        else sum(len(part.text) for part in message.content if part.type == "text")
        for message in messages
    )
    limit = LETTERS * (context or 32768)
    if letters > limit:
        raise refused(
            f"the messages have {letters:,} characters, and the model's context holds about {limit // LETTERS:,} "
            "tokens; shorten them",
            "context_length_exceeded", "messages",
        )  # fmt: skip


def _conversation(messages: list[Message], images: list[None]) -> Conversation:
    turns = []
    for message in messages:
        role = "system" if message.role == "developer" else message.role
        parts = message.content
        content = (parts,) if isinstance(parts, str) else [p.text if p.type == "text" else IMAGE for p in parts]
        if role != "user" and IMAGE in content:
            raise refused("pictures belong into messages of the user; move them there", "invalid_value", "messages")
        turns.append(Turn(role, tuple(content)))
    if turns[-1].role != "user":
        raise refused("the last message has to be the user's, which is answered; add it", "invalid_value", "messages")
    if not turns[-1].text.strip():
        raise refused("the last message has no text; ask something in it", "invalid_value", "messages")
    return Conversation(tuple(turns), tuple(images))


def _room(run: Augmented, conversation: Conversation) -> int | None:
    """How many tokens the model's context has left for the answer; None where it has no limit."""
    try:
        [length] = run.processor.lengths([conversation], labels=False)
    except PromptError as error:
        raise refused(str(error), "context_length_exceeded", "messages") from error
    except jinja2.TemplateError as error:
        raise refused(f"this model's chat template does not take these roles in this order: {error.message}",
                      "invalid_value", "messages") from error  # fmt: skip
    limit = run.processor.max_length
    return None if limit is None else limit - length


def _experts(run: Augmented, names: list[str] | None) -> tuple[str, ...] | None:
    if names is None:
        return None
    try:
        return tuple(expert.name for expert in run.perceiver.only(names).experts)
    except ExpertError as error:
        raise refused(str(error), "invalid_value", "moai.experts") from error


def _sampling(fields: ChatRequest, settings: Settings, room: int | None) -> Sampling:
    wanted = fields.max_completion_tokens or fields.max_tokens
    if room is not None and (wanted or 1) > room:
        raise refused(
            f"the context has room for {max(0, room):,} more tokens and {wanted or 1:,} are asked for; "
            "ask for fewer, or shorten the messages",
            "context_length_exceeded", "messages",
        )  # fmt: skip
    stop = (fields.stop,) if isinstance(fields.stop, str) else tuple(fields.stop or ())
    return Sampling(
        temperature=fields.temperature or 0.0,
        top_p=1.0 if fields.top_p is None else fields.top_p,
        seed=random.SystemRandom().getrandbits(63) if fields.seed is None else fields.seed,
        stop=stop,
        max_tokens=wanted or min(settings.max_tokens, room or settings.max_tokens),
        logprobs=bool(fields.logprobs),
        top_logprobs=fields.top_logprobs or 0,
    )
