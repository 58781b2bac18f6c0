"""Hold a share of a source's samples out for another split, by a hash.

Knows: samples. All samples of one image fall on one side, so that no picture is trained on and tested with.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping

import numpy as np

from moai.data.row_index import cached_array
from moai.data.samples import Samples, Selected


def hold_out(samples: Samples, split: str, shares: Mapping[str, float], rest: str) -> Samples:
    """Return the samples of one split: those whose hash falls into its share, or the rest.

    Args:
        samples: of the whole source; each row is read once, and the outcome is cached where the files are as they were.
        split: the name of a share, or ``rest``.
        shares: name -> share; the draw depends on them and on nothing else.
        rest: name of the split that has what no share takes, rows that cannot be read among them.
    """
    names = list(shares)
    assigned = _cached_assignment(samples, shares)
    wanted = len(names) if split == rest else names.index(split)
    return Selected(samples, np.flatnonzero(assigned == wanted))


def share_of(name: str, shares: Mapping[str, float]) -> int:
    """Return the number of the share that a name falls into by its hash; ``len(shares)`` for none."""
    drawn = int.from_bytes(hashlib.sha256(f"hold out:{name}".encode()).digest()[:8]) / 2**64
    for number, share in enumerate(shares.values()):
        if drawn < share:
            return number
        drawn -= share
    return len(shares)


def _cached_assignment(samples: Samples, shares: Mapping[str, float]) -> np.ndarray:
    if not samples.key:
        return _assignment(samples, shares)
    name = hashlib.sha256(json.dumps([samples.key, list(shares.items())]).encode()).hexdigest()
    return cached_array(name, "what is held out", lambda: _assignment(samples, shares))


def _assignment(samples: Samples, shares: Mapping[str, float]) -> np.ndarray:
    numbers = (share_of(name, shares) if name else len(shares) for name in samples.groups())
    return np.fromiter(numbers, np.uint8, len(samples))
