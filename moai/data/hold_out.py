"""Hold a share of a source's samples out for another split, by a hash.

Knows: samples. All samples of one image fall on one side, so that no picture is trained on and tested with.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping

import numpy as np

from moai.assets.cache import cache_dir
from moai.assets.replacing import replacing
from moai.data.samples import Samples, Selected

log = logging.getLogger("moai")


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
    path = cache_dir() / "rows" / f"{name}.npy"
    if path.is_file():
        return np.load(path, allow_pickle=False)
    made = _assignment(samples, shares)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as part, open(part, "wb") as file:
            np.save(file, made)
    except OSError as error:  # it is made anew the next time
        log.warning("which rows are held out is not cached: %s", error.strerror or error)
    return made


def _assignment(samples: Samples, shares: Mapping[str, float]) -> np.ndarray:
    numbers = (share_of(name, shares) if name else len(shares) for name in samples.groups())
    return np.fromiter(numbers, np.uint8, len(samples))
