"""Read JSON lines: one picture a line, in moai's own form (`moai perceive`) or as lists of boxes and labels."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import fields
from functools import partial
from pathlib import Path
from typing import Any

from moai.errors import ExpertError
from moai.types import (
    Box,
    Detection,
    Perception,
    Relation,
    Segment,
    TextLine,
    mask_from_coco,
    to_box,
    to_polygon,
    to_score,
)
from moai_precomputed.index import Entry, digest_of, name_parts, size_of

MAX_LINE = 2**26  # bytes
KEYS = ("boxes", "labels", "scores", "masks", "texts", "relations", "notes", "width", "height", "image", "sha256")
_KINDS = {"segments": Segment, "detections": Detection, "relations": Relation, "texts": TextLine}
OWN = ("segments", "detections")  # a line with one of these is a perception of moai's


def read_lines(path: Path, name: str) -> Iterator[Entry]:
    """List the pictures of a file; of each line only its place is kept.

    Raises:
        ExpertError: the file cannot be read, or a line is no JSON object or names no picture.
    """
    try:
        stamp = _stamp(path)
        with open(path, "rb") as file:
            offset = 0
            for number, line in enumerate(iter(partial(file.readline, MAX_LINE + 1), b""), start=1):
                where = f"{name}, line {number}"
                if line.strip():
                    row = _parse(line, where)
                    digest = digest_of(row["sha256"], where) if row.get("sha256") is not None else ""
                    parts = () if digest else name_parts(row.get("image"), where)
                    yield Entry(name, where, parts, digest, partial(_read, path, stamp, offset, len(line), where))
                offset += len(line)
    except OSError as error:
        raise ExpertError(f"{name} cannot be read: {error.strerror or error}; check the file") from error


def to_perception(row: dict[str, Any], width: int, height: int) -> Perception:
    """Convert the object of a line.

    Args:
        row: as docs/precomputed.md describes it.
        width, height: of the picture, where the row has none.

    Raises:
        ExpertError: a field that breaks the form.
    """
    if row.get("error"):
        raise ExpertError(f"there it says: {row['error']!s:.200}")
    size = size_of((row.get("width"), row.get("height")), width, height)
    if any(key in row for key in OWN):
        return _own(row)
    for key in row:
        if (meant := _meant(key)) is not None:
            raise ExpertError(f"it has '{key}'; did you mean '{meant}'?")
    unit = _unit_of(row, size)
    boxes = _list(row, "boxes")
    labels, scores, masks = (_list(row, key) for key in ("labels", "scores", "masks"))
    for key, values in (("labels", labels), ("scores", scores), ("masks", masks)):
        if len(values) != len(boxes) and (values or key == "labels"):
            raise ExpertError(f"there are {len(boxes)} boxes and {len(values)} {key}; write one for each box")
    placed = [to_box(box, *unit, f"box {number}") for number, box in enumerate(boxes)]
    segments, detections = [], []
    for number, (label, box) in enumerate(zip(labels, placed)):
        score = to_score(scores[number], f"score {number}") if scores else 1.0
        mask = mask_from_coco(masks[number], *size) if masks and masks[number] else None
        if mask is not None:
            segments.append(Segment(label, score, box, mask))
        else:
            detections.append(Detection(label, score, box))
    relations = tuple(_relation(one, labels, placed) for one in _list(row, "relations"))
    texts = tuple(_text(one, unit) for one in _list(row, "texts"))
    return Perception(tuple(segments), tuple(detections), relations, texts, _notes(row.get("notes")))


def _own(row: dict[str, Any]) -> Perception:
    """Read a perception as moai writes it; which experts found it, and which failed, is not this picture's."""
    known = {key: [_known(one, kind) for one in _list(row, key)] for key, kind in _KINDS.items()}
    try:
        return Perception.from_dict({**known, "notes": _notes(row.get("notes"))})
    except (TypeError, ValueError, KeyError, AttributeError) as error:
        raise ExpertError(f"it is no perception as moai writes it ({error!s:.120})") from error


def _known(given: Any, kind: type) -> dict[str, Any]:
    if not isinstance(given, dict):
        raise ExpertError(f"it is no perception as moai writes it; a finding is an object, not {given!r:.60}")
    return {field.name: given[field.name] for field in fields(kind) if field.name in given and field.name != "source"}


def _unit_of(row: dict[str, Any], size: tuple[int, int]) -> tuple[float, float]:
    """Return what coordinates are divided by: the picture's size, or 1 where they are normalised."""
    if row.get("normalized") is True:
        return 1.0, 1.0
    numbers = [n for box in _list(row, "boxes") if isinstance(box, list) for n in box if isinstance(n, (int, float))]
    if numbers and max(size) > 2 and any(numbers) and max(numbers) <= 1:
        raise ExpertError('its boxes lie between 0 and 1, and pixels are expected; add "normalized": true')
    return float(size[0]), float(size[1])


def _relation(given: Any, labels: list[Any], boxes: list[Box]) -> Relation:
    if isinstance(given, list) and len(given) in (3, 4):
        given = dict(zip(("subject", "predicate", "object", "score"), given))
    if not isinstance(given, dict) or not {"subject", "predicate", "object"} <= given.keys():
        raise ExpertError(f"a relation is [subject, predicate, object], not {given!r:.60}")
    ends = []
    for end in (given["subject"], given["object"]):
        if isinstance(end, str):
            ends.append((end, None))
        elif isinstance(end, int) and not isinstance(end, bool) and 0 <= end < len(boxes):
            ends.append((labels[end], boxes[end]))
        else:
            raise ExpertError(f"a relation's subject and object are names, or numbers of boxes from 0, not {end!r:.60}")
    score = to_score(given.get("score", 1.0))
    return Relation(ends[0][0], given["predicate"], ends[1][0], score, ends[0][1], ends[1][1])


def _text(given: Any, unit: tuple[float, float]) -> TextLine:
    given = {"text": given} if isinstance(given, str) else given
    if not isinstance(given, dict) or not isinstance(given.get("text"), str):
        raise ExpertError(f"a line of text is a string, or an object with 'text', not {given!r:.60}")
    polygon: tuple[tuple[float, float], ...] = ()
    if given.get("polygon") is not None:
        polygon = to_polygon(given["polygon"], *unit)
    elif given.get("box") is not None:
        x0, y0, x1, y1 = to_box(given["box"], *unit)
        polygon = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    return TextLine(given["text"], to_score(given.get("score", 1.0)), polygon)


def _notes(given: Any) -> dict[str, tuple[str, ...]]:
    """Read sentences by role, or objects with role and text."""
    if isinstance(given, list) and all(isinstance(one, dict) and {"role", "text"} <= one.keys() for one in given):
        roles = dict.fromkeys(one["role"] for one in given if isinstance(one["role"], str))
        return {role: tuple(one["text"] for one in given if one["role"] == role) for role in roles}
    if given is None:
        return {}
    if not isinstance(given, dict) or not all(isinstance(lines, list) for lines in given.values()):
        raise ExpertError(f"notes are lists of sentences by role, not {given!r:.60}")
    return {role: tuple(lines) for role, lines in given.items()}


def _list(row: dict[str, Any], key: str) -> list[Any]:
    value = row.get(key)
    if value is not None and not isinstance(value, list):
        raise ExpertError(f"'{key}' is a list, not {value!r:.60}")
    return value or []


def _meant(key: str) -> str | None:
    """Return the key that was meant, for the singular, another case or COCO's word of one."""
    plain = {"bbox": "boxes", "bboxes": "boxes", "box": "boxes", "file_name": "image"}.get(key.lower(), key.lower())
    meant = next((known for known in KEYS if plain in (known, known.rstrip("s"))), None)
    return meant if key not in KEYS else None


def _read(
    path: Path, stamp: tuple[int, int], offset: int, length: int, where: str, width: int, height: int
) -> Perception:
    try:
        with open(path, "rb") as file:
            if _stamp(path) != stamp:
                raise ExpertError("the file has changed since it was opened; start again")
            file.seek(offset)
            return to_perception(_parse(file.read(length), where), width, height)
    except OSError as error:
        raise ExpertError(f"cannot be read: {error.strerror or error}; check the file") from error


def _parse(line: bytes, where: str) -> dict[str, Any]:
    if len(line) > MAX_LINE:
        raise ExpertError(f"{where} has more than {MAX_LINE:,} bytes; give masks as COCO's strings")
    try:
        row = json.loads(line.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:
        raise ExpertError(f"{where} is no JSON ({str(error)[:120]}); write one object per line") from error
    if not isinstance(row, dict):
        raise ExpertError(f"{where} is an object, not {type(row).__name__}; write one object per line")
    return row


def _stamp(path: Path) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_mtime_ns, status.st_size
