"""What is in a perception cache, what is damaged in it, and how it gets smaller.

Knows: the tables of ``moai.perception.cache.store``. Everything works while other processes read and write.
"""

from __future__ import annotations

import logging
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from moai.errors import AssetError
from moai.perception.cache.store import Store, read_entry

log = logging.getLogger("moai")
UNKNOWN = "(unknown)"  # entries of a moai that did not note whose they are
_CHUNK = 500  # entries read at once, so that a large cache does not pass through memory
_NOTED = "FROM entries LEFT JOIN origins USING (key)"
_OWNER = f"coalesce(nullif(expert, ''), '{UNKNOWN}')"


@dataclass(frozen=True)
class Share:
    """What one expert has in a cache."""

    expert: str
    entries: int
    bytes: int
    newest: float | None  # seconds since 1970


def shares(store: Store) -> list[Share]:
    """Entries and bytes per expert, the largest first."""
    query = (
        f"SELECT {_OWNER} AS owner, count(*), sum(length(data)), max(created) {_NOTED} GROUP BY owner ORDER BY 3 DESC"
    )
    return [Share(*row) for row in store.run(lambda db: db.execute(query).fetchall())]


def clear(store: Store, expert: str | None = None, older_than: float | None = None) -> int:
    """Drop entries, and give their room back to the disk.

    Args:
        expert: only this expert's; ``UNKNOWN`` for those of nobody known.
        older_than: only those made more than so many seconds ago. An entry that nobody dated counts as old.

    Returns:
        How many were dropped.
    """
    wheres, values = ["1"], []
    if expert is not None:
        wheres.append(f"{_OWNER} = ?")
        values.append(expert)
    if older_than is not None:
        wheres.append("coalesce(created, 0) < ?")
        values.append(time.time() - older_than)
    which = f"SELECT key {_NOTED} WHERE {' AND '.join(wheres)}"

    def drop(db: sqlite3.Connection) -> int:
        gone = db.execute(f"DELETE FROM entries WHERE key IN ({which})", values).rowcount
        db.execute("DELETE FROM origins WHERE key NOT IN (SELECT key FROM entries)")
        return gone

    gone = store.run(drop)
    if gone:
        _shrink(store)
    return gone


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Read every entry; yield its key, and what is wrong with it or None. A damaged one is dropped: it is remade."""
    last = ""
    query = "SELECT key, checksum, data FROM entries WHERE key > ? ORDER BY key LIMIT ?"
    while rows := store.run(lambda db, after=last: db.execute(query, (after, _CHUNK)).fetchall()):
        for key, checksum, data in rows:
            reason = None
            try:
                read_entry(key, checksum, data)
            except Exception as error:  # damaged bytes raise nearly anything
                reason = f"{type(error).__name__}: {error}"
                store.drop(key, data)
            yield key, reason
        last = rows[-1][0]


def set_aside(folder: Path) -> list[Path]:
    """Files of caches that were damaged as a whole, kept by ``Store`` beside the sound one."""
    return sorted(folder.glob("*.damaged-*"))


def _shrink(store: Store) -> None:
    # VACUUM cannot run inside a transaction, and other processes may be in one: then the room is reused, not freed.
    try:
        store.vacuum()
    except AssetError as error:
        log.warning("the entries are gone, but the file keeps its size: %s", error)
