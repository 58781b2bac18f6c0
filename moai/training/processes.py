"""Tell in a sentence that another process of a run has ended.

Knows: torch's process groups. What a lost process looks like to the others depends on the library that connects them:
gloo finds a closed connection at once, NCCL only after its time-out, where torchrun has ended the others before.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from torch import distributed as dist

from moai.errors import TrainingError

SIGNS = (
    "closed by peer",
    "reset by peer",
    "broken pipe",
    "socket closed",
    "remote process exited",
    "connection refused",
)


@contextmanager
def naming_lost_processes(run_dir: Path) -> Iterator[None]:
    """Turn the error of a connection to another process into a sentence.

    Raises:
        TrainingError: another process has ended.
    """
    try:
        yield
    except RuntimeError as error:
        if not dist.is_initialized() or not _is_lost(error):
            raise
        first = str(error).strip().splitlines()[0]
        raise TrainingError(
            f"another process of this run has ended ({first}); what it has printed says why, and the kernel's log "
            f"where it was killed; start all of them again with --resume --run {run_dir}"
        ) from None


def _is_lost(error: RuntimeError) -> bool:
    text = str(error).lower()
    return isinstance(error, dist.DistNetworkError) or any(sign in text for sign in SIGNS)
