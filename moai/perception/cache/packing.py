"""A perception as bytes, and back: one line of JSON, then the run lengths of all masks, compressed.

Knows: the layout of a stored entry. Run lengths are kept as raw 32-bit integers beside the JSON: fifty full-size masks
hold thirty thousand of them, and reading those as JSON numbers takes longer than everything else together. Nothing is
pickled, so a cache folder that somebody else wrote cannot run code.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np

from moai.types import Mask, Perception

FORMAT = 1  # part of every cache key: raise it when the layout or the perception's fields change meaning


def pack(perception: Perception) -> bytes:
    """Bytes that ``unpack`` turns back into an equal perception.

    Raises:
        TypeError, ValueError, OverflowError: a field holds something that is not plain data.
    """
    return zlib.compress(plain_bytes(perception), 1)


def plain_bytes(perception: Perception) -> bytes:
    """What ``pack`` compresses: equal perceptions give equal bytes, whatever the version of zlib."""
    runs: list[int] = []

    def plain(value: Any) -> dict[str, Any]:
        if isinstance(value, Mask):
            runs.extend(value.counts)
            return {"height": value.height, "width": value.width, "counts": len(value.counts)}
        if type(value).__module__ == Perception.__module__:
            return vars(value)
        kind = type(value)
        raise TypeError(f"a perception holds plain Python data only, not {kind.__module__}.{kind.__name__}")

    text = json.dumps(perception, default=plain, separators=(",", ":"), allow_nan=False)
    return text.encode() + b"\n" + np.array(runs, dtype="<u4").tobytes()


def unpack(data: bytes) -> Perception:
    """Read what ``pack`` wrote.

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
