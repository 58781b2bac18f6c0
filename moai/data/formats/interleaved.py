"""The format ``interleaved``: documents of text and images in order, as MMC4 and OBELICS write them.

Knows: both layouts, and KOSMOS-1's filter (arXiv 2302.14045, section 3): at most five images of a document, and half of
the documents with one image left out.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from pydantic import ConfigDict, Field, validate_call

from moai.data.row_index import Place, cached_array
from moai.data.samples import LazySamples, Samples, Selected
from moai.data.source import Source
from moai.errors import DataError
from moai.types import IMAGE, Sample

log = logging.getLogger("moai")


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def interleaved(
    source: Source,
    max_images: Annotated[int, Field(ge=1)] = 5,
    keep_single: Annotated[float, Field(ge=0, le=1)] = 0.5,
) -> Samples:
    """Read documents, of which all text is learnt.

    Args:
        source: JSON rows ``{"texts", "images"}`` (OBELICS: one list with gaps where the other has something) or
            ``{"text_list", "image_info": [{"image_name", "matched_text_index"}]}`` (MMC4).
        max_images: a document ends before the next image.
        keep_single: share of the documents with one image that is kept, by a hash of the document.
    """
    rows = LazySamples(source.records(), lambda row, place: _from_row(source, row, place, max_images), group=_text)
    if keep_single == 1:
        return rows
    name = hashlib.sha256(f"interleaved {keep_single} {rows.key}".encode()).hexdigest()
    kept = cached_array(name, "the documents that are kept", lambda: _kept(rows, keep_single))
    log.warning(
        "%s: %d of %d documents are left out: they have one image, and keep_single is %g",
        source.path, len(rows) - len(kept), len(rows), keep_single,
    )  # fmt: skip
    selected = Selected(rows, kept)
    selected.key = name
    return selected


def _kept(rows: LazySamples, share: float) -> np.ndarray:
    found = []
    for index, row in enumerate(rows.records.stream()):
        single = not isinstance(row, DataError) and _images(row) == 1
        drawn = int.from_bytes(hashlib.sha256(f"keep:{_text(row)}".encode()).digest()[:8]) / 2**64
        if not single or drawn < share:
            found.append(index)
    return np.array(found, np.int64)


def _text(row: Any) -> str:
    """Name a document by its text."""
    return str(row.get("texts", row.get("text_list"))) if isinstance(row, Mapping) else str(row)


def _images(row: Mapping[str, Any]) -> int:
    listed = row.get("images") if "texts" in row else row.get("image_info")
    return sum(one is not None for one in listed) if isinstance(listed, list) else 0


def _from_row(source: Source, row: Mapping[str, Any], place: Place, max_images: int) -> Sample:
    pieces = _of_obelics(row) if "texts" in row else _of_mmc4(row)
    content: list[Any] = []
    images: list[Any] = []
    for kind, value in pieces:
        if kind == "image":
            if len(images) == max_images:
                break
            images.append(value)
        content.append(IMAGE if kind == "image" else value)
    if not any(isinstance(part, str) and part.strip() for part in content):
        raise DataError("a document without any text; leave it out", "empty text")
    return source.sample(place, row.get("id"), [("text", tuple(content))], images, loss="all")


def _of_obelics(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    texts, images = row["texts"], row.get("images")
    if not isinstance(texts, list) or not isinstance(images, list) or len(texts) != len(images):
        raise DataError("texts and images are lists of one length, with null where the other has something")
    pieces: list[tuple[str, Any]] = []
    for text, image in zip(texts, images, strict=True):
        if (text is None) == (image is None):
            raise DataError("a place of a document holds a text or an image, not both and not neither")
        pieces.append(("image", image) if text is None else ("text", _checked(text)))
    return pieces


def _of_mmc4(row: Mapping[str, Any]) -> list[tuple[str, Any]]:
    texts, about = row.get("text_list"), row.get("image_info", [])
    if not isinstance(texts, list) or not isinstance(about, list):
        raise DataError("no lists text_list and image_info, and no lists texts and images; choose another format")
    before: dict[int, list[Any]] = {}
    for one in about:
        at = one.get("matched_text_index") if isinstance(one, Mapping) else None
        if not isinstance(at, int) or not 0 <= at < len(texts):
            raise DataError(f"image_info needs a matched_text_index from 0 to {len(texts) - 1}; fix {one!r:.60}")
        before.setdefault(at, []).append(one.get("image_name"))
    pieces: list[tuple[str, Any]] = []
    for number, text in enumerate(texts):
        pieces += [("image", image) for image in before.get(number, [])]
        pieces.append(("text", _checked(text) + (" " if number < len(texts) - 1 else "")))
    return pieces


def _checked(text: Any) -> str:
    if not isinstance(text, str):
        raise DataError(f"a text of the document is {type(text).__name__}; write a string")
    return text
