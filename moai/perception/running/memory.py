"""Read, format and measure sizes of memory.

Knows: psutil, and torch's own count when torch is already imported. Measurements are estimates: an allocator keeps
freed memory, and other threads allocate meanwhile.
"""

from __future__ import annotations

import re
import sys

from moai.errors import ExpertError

_UNITS = {"": 1, "b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
_UNITS |= {"kib": 2**10, "mib": 2**20, "gib": 2**30, "tib": 2**40, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([a-zA-Z]*)")


def parse_size(size: int | str) -> int:
    """Parse a size in bytes: ``"8GB"`` is 8_000_000_000, ``GiB`` counts by 1024, and a bare number is bytes.

    Raises:
        ExpertError: no size, or a negative one.
    """
    if isinstance(size, int) and not isinstance(size, bool) and size >= 0:
        return size
    found = _SIZE.fullmatch(str(size).strip()) if isinstance(size, str) else None
    if found is None or found[2].lower() not in _UNITS:
        raise ExpertError(f"{size!r} is no amount of memory; write a number of bytes, or one such as 8GB, 500MB, 2GiB")
    return int(float(found[1]) * _UNITS[found[2].lower()])


def format_size(size: int) -> str:
    """Format bytes for people: ``1_500_000_000`` is ``"1.5 GB"``."""
    value, unit = float(size), "B"
    for unit in ("B", "KB", "MB", "GB", "TB"):
        if value < 1000 or unit == "TB":
            break
        value /= 1000
    return f"{value:.0f} {unit}" if unit == "B" or value >= 100 else f"{value:.1f} {unit}"


def allocated_bytes(device: str) -> int | None:
    """Measure the bytes that this process has allocated on ``device``; None where that is not possible."""
    if device.startswith("cuda"):
        torch = sys.modules.get("torch")  # an expert on this device has imported it; else there is nothing to measure
        return int(torch.cuda.memory_allocated(device)) if torch is not None and torch.cuda.is_available() else None
    if device != "cpu":
        return None
    import psutil

    return int(psutil.Process().memory_info().rss)
