"""Pack a perception into bytes: one line of JSON, then the run lengths of all masks, compressed.

Knows: the layout of a stored entry. Run lengths are kept as raw 32-bit integers beside the JSON: fifty full-size masks
hold thirty thousand of them, and reading those as JSON numbers takes longer than all the rest. Nothing is
pickled, so a cache folder from another machine cannot run code.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from moai.types import Detection, Failure, Mask, Perception, Relation, Segment, Source, TextLine

_PLAIN = (Perception, Segment, Detection, Relation, TextLine, Source, Failure)
PROVENANCE = ("source", "cached")  # fields that say where a finding comes from
FORMAT = 1  # part of every cache key: raise it when the layout or the perception's fields change meaning


def pack(perception: Perception) -> bytes:
    """Pack a perception into bytes; ``unpack`` returns an equal one.

    Raises:
        TypeError, ValueError, OverflowError: a field holds something that is not plain data.
    """
    return zlib.compress(plain_bytes(perception), 1)


def plain_bytes(perception: Perception) -> bytes:
    """Serialize a perception without compression: equal perceptions give equal bytes in every version of zlib.

    Which expert found what, and whether it came from the cache, is left out: the perceiver adds it to what it returns.
    """
    runs: list[int] = []

    def plain(value: Any) -> dict[str, Any]:
        if isinstance(value, Mask):
            runs.extend(value.counts)
            return {"height": value.height, "width": value.width, "counts": len(value.counts)}
        if type(value) in _PLAIN:
            return {name: part for name, part in vars(value).items() if name not in PROVENANCE}
        kind = type(value)
        raise TypeError(f"a perception holds plain Python data only, not {kind.__module__}.{kind.__name__}")

    text = json.dumps(perception, default=plain, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n" + np.array(runs, dtype="<u4").tobytes()


def unpack(data: bytes) -> Perception:
    """Unpack the bytes of ``pack``.

    Raises:
        ValueError, KeyError, TypeError, zlib.error: the bytes are not a packed perception.
    """
    text, _, raw = zlib.decompress(data).partition(b"\n")
    fields = json.loads(text)
    runs = np.frombuffer(raw, dtype="<u4").tolist()
    start = 0
    for segment in fields["segments"]:
        mask = segment["mask"]
        if mask is not None:
            stop = start + mask["counts"]
            mask["counts"] = runs[start:stop]
            start = stop
    if start != len(runs):
        raise ValueError(f"{len(runs)} run lengths stored, {start} expected")
    return Perception.from_dict(fields)
