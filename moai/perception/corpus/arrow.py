"""Import pyarrow, which an extra installs, and define the columns of a shard.

Knows: pyarrow, and what is stored of an image and its perception. No time, host or process is stored, so that the same
images and experts give the same bytes.
"""

from __future__ import annotations

import functools
from typing import Any

from moai.errors import CorpusError

GROUP = 32  # rows that are written and read together
FORMAT = 1  # of shards, list and manifest: raise it when what they hold changes meaning


@functools.cache
def import_pyarrow() -> tuple[Any, Any]:
    """Import pyarrow and its Parquet module.

    Raises:
        CorpusError: pyarrow is not installed; the message has the command.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise CorpusError(f"shards need pyarrow ({error}); pip install 'moai-vlm[corpus]'") from error
    return pyarrow, pyarrow.parquet


def shard_schema() -> Any:
    """Build the Arrow schema of a shard; docs/corpus.md describes the columns."""
    arrow, _ = import_pyarrow()
    failure = arrow.struct([("expert", arrow.string()), ("reason", arrow.string())])
    return arrow.schema(
        [
            ("id", arrow.string()),
            ("path", arrow.string()),
            ("bytes", arrow.int64()),
            ("sha256", arrow.string()),
            ("width", arrow.int32()),
            ("height", arrow.int32()),
            ("perception", arrow.string()),
            ("failures", arrow.list_(failure)),
            ("error", arrow.string()),
            ("experts", arrow.string()),
            ("experts_key", arrow.string()),
        ]
    )


def storable(text: str) -> str:
    """Return the text in valid Unicode: a file name that is none has its odd bytes written as escapes."""
    return text.encode("utf-8", errors="backslashreplace").decode("utf-8")
