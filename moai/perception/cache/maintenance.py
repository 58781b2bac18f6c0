"""Maintain a perception cache: count its entries, verify them, and clear them.

Knows: the tables of ``moai.perception.cache.store``. Other processes may read and write meanwhile.
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
UNKNOWN = "(unknown)"  # the expert of entries from a version of moai that did not store it
_CHUNK = 500  # entries read at once, so that a large cache is never in memory as a whole
_WITH_ORIGINS = "FROM entries LEFT JOIN origins USING (key)"
_OWNER = f"coalesce(nullif(expert, ''), '{UNKNOWN}')"


@dataclass(frozen=True)
class Share:
    """Count the entries and bytes of one expert."""

    expert: str
    entries: int
    bytes: int
    newest: float | None  # seconds since 1970


def shares(store: Store) -> list[Share]:
    """Count entries and bytes per expert, the largest first."""
    query = (
        f"SELECT {_OWNER} AS owner, count(*), sum(length(data)), max(created) {_WITH_ORIGINS} "
        "GROUP BY owner ORDER BY 3 DESC"
    )
    return [Share(*row) for row in store.run(lambda db: db.execute(query).fetchall())]


def clear(store: Store, expert: str | None = None, older_than: float | None = None) -> int:
    """Delete entries, and free their disk space.

    Args:
        expert: only this expert's; ``UNKNOWN`` for those without one.
        older_than: only those made more than so many seconds ago. An entry without a date counts as old.

    Returns:
        The number of deleted entries.
    """
    wheres, values = ["1"], []
    if expert is not None:
        wheres.append(f"{_OWNER} = ?")
        values.append(expert)
    if older_than is not None:
        wheres.append("coalesce(created, 0) < ?")
        values.append(time.time() - older_than)
    which = f"SELECT key {_WITH_ORIGINS} WHERE {' AND '.join(wheres)}"

    def drop(db: sqlite3.Connection) -> int:
        gone = db.execute(f"DELETE FROM entries WHERE key IN ({which})", values).rowcount
        db.execute("DELETE FROM origins WHERE key NOT IN (SELECT key FROM entries)")
        return gone

    gone = store.run(drop)
    if gone:
        _shrink(store)
    return gone


def verify(store: Store) -> Iterator[tuple[str, str | None]]:
    """Read every entry; yield its key, and the reason when it is damaged, or None. A damaged entry is deleted."""
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


def damaged_files(folder: Path) -> list[Path]:
    """List the files of caches that were damaged as a whole, which ``Store`` renamed."""
    return sorted(folder.glob("*.damaged-*"))


def _shrink(store: Store) -> None:
    # VACUUM cannot run inside a transaction, and other processes may be in one: then the space is reused, not freed.
    try:
        store.vacuum()
    except AssetError as error:
        log.warning("the entries are deleted, but the file keeps its size: %s", error)
