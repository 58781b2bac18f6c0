"""The format ``jsonl``: questions and answers, or messages, one JSON object per line, beside a folder of pictures.

Knows: the keys of a row.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import ConfigDict, validate_call

from moai.data.row_index import Place
from moai.data.samples import LazySamples
from moai.data.source import Source
from moai.data.turns import split_at
from moai.errors import DataError
from moai.types import IMAGE, Sample

MARKER = "<image>"
ROLES = ("system", "user", "assistant")


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def jsonl(source: Source, marker: str | None = MARKER) -> LazySamples:
    """Read ``{"image", "question", "answer"}`` and ``{"image", "messages": [{"role", "content"}]}``.

    Args:
        source: files of JSON lines, or JSON arrays of the same rows.
        marker: the text of a message that is an image's place; None for none. A question never has one: its images
            stand before it.
    """
    return LazySamples(source.records(), lambda row, place: from_row(source, row, place, marker))


def from_row(source: Source, row: Mapping[str, Any], place: Place, marker: str | None = MARKER) -> Sample:
    """Make a sample of a row.

    Raises:
        DataError: a key is missing or of another type, or images and turns do not fit.
    """
    images = image_names(row)
    about = about_row(row)
    if "messages" in row:
        messages = row["messages"]
        if not isinstance(messages, list):
            raise DataError(f"messages is {type(messages).__name__}; write a list of {{role, content}}")
        turns, held = [], []
        for message in messages:
            content = list(_message_content(message, marker, held))
            turns.append((message["role"], tuple(content)))
        if images and held:
            raise DataError("images stand both in the messages and beside them; leave one out")
        return source.sample(place, row.get("id"), turns, images or held, **about)
    question, answer = text_of(row, "question"), text_of(row, "answer")
    asked = (*(IMAGE for _ in images), question)
    return source.sample(place, row.get("id"), [("user", asked), ("assistant", answer)], images, **about)


def image_names(row: Mapping[str, Any]) -> list[Any]:
    """Return the names under ``image`` or ``images``: a text is one name, never a list of letters."""
    if row.get("image") is not None and row.get("images") is not None:
        raise DataError("a row has image or images, not both; leave one out")
    given = row.get("image") if row.get("image") is not None else row.get("images")
    if given is None or given == "":
        return []
    return list(given) if isinstance(given, list) else [given]


def about_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the keys of a row that describe a sample beside its conversation: kind, answers and language."""
    about = {name: text_of(row, name) for name in ("kind", "language") if row.get(name) is not None}
    if row.get("answers") is not None:
        answers = row["answers"]
        if not isinstance(answers, list) or not all(isinstance(one, str) for one in answers):
            raise DataError("answers is a list of texts; fix it, or leave it out")
        about["answers"] = tuple(answers)
    return about


def text_of(row: Mapping[str, Any], name: str) -> str:
    """Return a text of a row.

    Raises:
        DataError: it is missing, or something else than text or a number.
    """
    if name not in row:
        keys = ", ".join(list(map(str, row))[:8]) or "none"
        raise DataError(f"no key '{name}' (keys: {keys:.120}); write it, or choose another format")
    value = row[name]
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"'{name}' is {type(value).__name__}; write a text")
    return str(value)


def _message_content(message: Any, marker: str | None, held: list[Any]) -> Iterator[Any]:
    """Yield texts and image marks of a message; names of images that it holds itself go to ``held``."""
    if not isinstance(message, Mapping) or "content" not in message or message.get("role") not in ROLES:
        raise DataError(f"a message is {{role, content}} with a role of {', '.join(ROLES)}; fix {message!r:.80}")
    content = message["content"]
    if not isinstance(content, Sequence) or isinstance(content, str):
        yield from split_at(content, marker)
        return
    for item in content:
        kind = item.get("type") if isinstance(item, Mapping) else None
        if kind == "text":
            yield text_of(item, "text")
        elif kind in ("image", "image_url"):
            names = [item[name] for name in ("image", "path", "url", "image_url") if item.get(name) is not None]
            held += names[:1]
            yield IMAGE
        else:
            raise DataError(f"a message's item is of type text or image, not {kind!r:.40}; leave it out")
