"""Replace a file as a whole: it is written next to the old one, then renamed.

Knows: paths.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """Yield a path to write to; what is there takes the place of ``path`` when the body ends, and goes when it raises.

    It lies beside ``path``, whose folder has to exist, and is hidden. A reader gets the old file or the new one; of two
    writers the last one wins.

    Raises:
        OSError: of the body, or ``path`` cannot be replaced.
    """
    path = Path(path)
    aside = path.with_name(f".{path.name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        yield aside
        os.replace(aside, path)
    except BaseException:
        aside.unlink(missing_ok=True)
        raise
