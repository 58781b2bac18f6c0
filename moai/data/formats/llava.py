"""The format ``llava``: LLaVA's conversations, as one JSON array or one object per line.

Knows: the layout: ``{"id", "image", "conversations": [{"from", "value"}]}``, ids of any type, rows without an image.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pydantic import ConfigDict, validate_call

from moai.data.formats.jsonl import MARKER, about_row, image_names
from moai.data.row_index import Place
from moai.data.samples import LazySamples
from moai.data.source import Source
from moai.data.turns import split_at
from moai.errors import DataError
from moai.types import IMAGE, Conversation, Sample, Turn

ROLES = {"human": "user", "user": "user", "gpt": "assistant", "assistant": "assistant", "system": "system"}


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def llava(source: Source, marker: str = MARKER, plain: bool = False) -> LazySamples:
    """Read LLaVA's conversations.

    Args:
        source: files of JSON arrays or JSON lines.
        marker: the text of a turn that is an image's place.
        plain: each row is an image with a caption, as in LLaVA-1.5's first stage: a document of the image, then the
            caption with a line break, without the question (the template ``plain``).
    """
    made = from_caption if plain else from_row
    return LazySamples(source.records(), lambda row, place: made(source, row, place, marker))


def from_caption(source: Source, row: Mapping[str, Any], place: Place, marker: str) -> Sample:
    """Make a document of a row: its image, then its answer.

    Raises:
        DataError: as for :func:`from_row`, or the row is no question with one image and one answer.
    """
    sample = from_row(source, row, place, marker)
    turns, images = sample.conversation.turns, sample.conversation.images
    if [turn.role for turn in turns] != ["user", "assistant"] or len(images) != 1:
        raise DataError("plain needs a question with one image, and an answer; set plain: false, or leave the row out")
    content = (IMAGE, f"{sample.answer}\n")
    return replace(sample, conversation=Conversation((Turn("text", content),), images, "all"))


def from_row(source: Source, row: Mapping[str, Any], place: Place, marker: str) -> Sample:
    """Make a sample of a row.

    Raises:
        DataError: no conversations, turns of another layout, or images and turns that do not fit.
    """
    spoken = row.get("conversations")
    if not isinstance(spoken, list):
        raise DataError("no list 'conversations'; write it, or choose another format")
    images, turns = image_names(row), []
    for turn in spoken:
        if not isinstance(turn, Mapping) or turn.get("from") not in ROLES or "value" not in turn:
            raise DataError(f"a turn is {{from, value}} with from one of {', '.join(ROLES)}; fix {turn!r:.80}")
        turns.append((ROLES[turn["from"]], split_at(turn["value"], marker)))
    return source.sample(place, row.get("id"), turns, images, **about_row(row))
