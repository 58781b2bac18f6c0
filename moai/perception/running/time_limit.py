"""The time that an expert may take: seconds for one image, and n times that for a batch of n.

Knows: nothing. By the image one number serves a question, which somebody waits for, as it serves a training run.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any

TIME_LIMIT = 60.0  # seconds, where nothing else is said
TimeLimit = float | Mapping[str, float | None] | None  # for all experts, or by name with "*" for the others


def is_limit(seconds: Any) -> bool:
    """Tell whether a value is a positive number of seconds that a thread can wait, or None for no limit."""
    return seconds is None or (isinstance(seconds, (int, float)) and 0 < seconds <= threading.TIMEOUT_MAX)


def batch_limit(seconds: float | None, images: int) -> float | None:
    """Return the seconds of a batch."""
    return None if seconds is None else min(seconds * images, threading.TIMEOUT_MAX)
