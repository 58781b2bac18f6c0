"""The format ``instructions``: text only, as ``{"instruction", "input", "output"}``.

Knows: the keys of a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from pydantic import ConfigDict, validate_call

from moai.data.formats.jsonl import about_row, text_of
from moai.data.row_index import Place
from moai.data.samples import LazySamples
from moai.data.source import Source
from moai.types import Sample


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def instructions(source: Source, system: str | None = None) -> LazySamples:
    """Read instructions without images; the input, where there is one, follows the instruction after a blank line.

    Args:
        source: files of JSON lines or JSON arrays.
        system: a system turn before each.
    """
    return LazySamples(source.records(), lambda row, place: _from_row(source, row, place, system))


def _from_row(source: Source, row: Mapping[str, Any], place: Place, system: str | None) -> Sample:
    given = text_of(row, "input") if row.get("input") else ""
    asked = "\n\n".join(filter(None, (text_of(row, "instruction"), given)))
    turns = [] if system is None else [("system", system)]
    turns += [("user", asked), ("assistant", text_of(row, "output"))]
    return source.sample(place, row.get("id"), turns, **about_row(row))
