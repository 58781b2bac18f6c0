"""Store perceptions on disk, so that no expert runs on the same image twice.

Knows: SQLite and what makes two perceptions the same (:func:`entry_key`). One file per folder, safe with several
threads and processes. An entry that was damaged is reported, dropped and perceived again; it never reaches an answer.
"""

from __future__ import annotations

import hashlib
import json
import logging
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from moai.errors import AssetError
from moai.expert import Expert
from moai.perception.cache.packing import FORMAT, pack, plain_bytes, unpack
from moai.types import Perception

log = logging.getLogger("moai")
_WAIT = 30.0  # seconds that a process waits for another one's transaction
_inherited: list[sqlite3.Connection] = []  # connections of a parent process: closing them here would break its locks


def entry_key(
    image_key: str, expert: Expert, context: Perception | None = None, weights: str | None = None, source: str = ""
) -> str:
    """Compute the cache key of one expert's perception of one image.

    Args:
        image_key: from ``moai.images.image_key``.
        expert: its name, version and options count.
        context: the perception by the experts of its ``requires``; counts only when it requires any.
        weights: from ``expert.weights_id()``, which is called when this is None.
        source: from ``expert.source``, where an expert that is being written shall not share entries with what it was.

    Returns:
        A SHA-256 in hex. Equal keys mean: same pixels, same expert, same version, options, weights and context.
    """
    context_hash = ""
    if expert.requires and context is not None:
        context_hash = hashlib.sha256(plain_bytes(context)).hexdigest()
    options = expert.options.model_dump(mode="json")
    parts = [FORMAT, image_key, expert.name, expert.version, options, context_hash]
    weights = expert.weights_id() if weights is None else weights
    if weights:  # an expert without an id has the key of versions before there were ids
        parts.append(weights)
    if source:
        parts.append({"source": source})
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


class Store:
    """Store perceptions by key in a folder. It may be used by several threads and processes, and pickled.

    A store that cannot be written is read, and what is new is not stored.

    Attributes:
        read_only: whether that is so.

    Raises:
        AssetError: there is no store in the folder, and it cannot be written.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self.path = self.folder / "perceptions.sqlite"
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self.read_only = False
        self.run(lambda db: None)  # an unusable folder is an error now, not after an hour of perceiving

    def __reduce__(self) -> tuple[type[Store], tuple[Path]]:
        return Store, (self.folder,)

    def __len__(self) -> int:
        return self.run(lambda db: db.execute("SELECT count(*) FROM entries").fetchone()[0])

    def get(self, key: str) -> Perception | None:
        """Read the perception of ``key``; None when there is none, or when it was damaged (then it is deleted)."""
        query = "SELECT checksum, data FROM entries WHERE key = ?"
        row = self.run(lambda db: db.execute(query, (key,)).fetchone())
        if row is None:
            return None
        checksum, data = row
        try:
            return read_entry(key, checksum, data)
        except Exception as error:  # damaged bytes raise nearly anything
            log.warning("perception cache %s: entry %s is damaged (%s); perceived again", self.path, key[:12], error)
            self.drop(key, data)
            return None

    def drop(self, key: str, data: bytes) -> None:
        """Delete an entry, unless its data have changed from ``data`` meanwhile; a store that is only read keeps it."""
        if not self.read_only:
            self.run(lambda db: db.execute("DELETE FROM entries WHERE key = ? AND data IS ?", (key, data)))

    def vacuum(self) -> None:
        """Free unused disk space. Raises AssetError while other processes use the file."""
        with self._lock:
            try:
                db = self._open()
                db.execute("VACUUM")
                db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
            except sqlite3.DatabaseError as error:
                raise self._unusable(error) from error

    def put(self, key: str, perception: Perception, expert: str = "") -> None:
        """Store ``perception`` under ``key``."""
        self.put_many([(key, perception)], expert)

    def put_many(self, entries: Iterable[tuple[str, Perception]], expert: str = "") -> None:
        """Store several in one transaction, in a fraction of the time of as many ``put`` calls.

        Args:
            entries: keys and perceptions.
            expert: the name of their expert, for ``moai cache``.

        Raises:
            AssetError: the disk is full or read-only.
            TypeError, ValueError, OverflowError: a perception holds something that is not plain data.
        """
        if self.read_only:
            return
        rows = []
        for key, perception in entries:
            data = pack(perception)
            rows.append((key, _checksum(key, data), data))
        if rows:
            self.run(lambda db: _insert(db, rows, expert))

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def run(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        """Run ``work`` in a transaction; a damaged database file is renamed once and a new one is made."""
        with self._lock:
            try:
                return self._transact(work)
            except sqlite3.OperationalError as error:
                raise self._unusable(error) from error
            except sqlite3.DatabaseError as error:
                if self.read_only:
                    raise self._unusable(error) from error
                log.warning("perception cache %s is damaged (%s); renamed, and a new one is made", self.path, error)
                self._replace_damaged()
            try:
                return self._transact(work)
            except sqlite3.DatabaseError as error:
                raise self._unusable(error) from error

    def _transact(self, work: Callable[[sqlite3.Connection], Any]) -> Any:
        db = self._open()
        with db:
            return work(db)

    def _open(self) -> sqlite3.Connection:
        if self._connection is not None and self._pid == os.getpid():
            return self._connection
        if self._connection is not None:
            _inherited.append(self._connection)
        self._connection = None
        if self.path.exists() and not self._writable():
            self._connection = _connect_read_only(self.path)
            self.read_only = self._connection is not None
            if self.read_only:
                log.warning("the perception cache %s can be read only; what is new is not stored", self.path)
        if self._connection is None:
            try:
                self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            except OSError as error:
                raise self._unusable(error) from error
            self._connection = _connect(self.path)
        self._pid = os.getpid()
        return self._connection

    def _writable(self) -> bool:
        parts = [self.path.with_name(self.path.name + suffix) for suffix in ("", "-wal", "-shm")]
        return all(os.access(path, os.W_OK) for path in (self.folder, *filter(Path.exists, parts)))

    def _replace_damaged(self) -> None:
        self.close()
        # Another process may have done this a moment ago; then the file is sound again, and is not renamed.
        try:
            _connect(self.path, check=True).close()
        except sqlite3.OperationalError:
            return  # locked or unreadable just now, which is no damage: the second try reports it
        except sqlite3.DatabaseError:
            mark = f".damaged-{os.getpid()}-{time.time_ns()}"
            for suffix in ("", "-wal", "-shm"):
                part = self.path.with_name(self.path.name + suffix)
                if part.exists():
                    part.replace(part.with_name(part.name + mark))

    def _unusable(self, error: Exception) -> AssetError:
        return AssetError(
            f"the perception cache {self.path} cannot be used: {error}; free disk space, fix its permissions, "
            "or choose another folder"
        )


def _connect(path: Path, check: bool = False) -> sqlite3.Connection:
    # One connection for all threads: Store's lock keeps them apart.
    db = sqlite3.connect(path, timeout=_WAIT, check_same_thread=False)
    try:
        if check and db.execute("PRAGMA quick_check(1)").fetchone() != ("ok",):
            raise sqlite3.DatabaseError("quick_check failed")
        _use_wal(db)
        db.execute("PRAGMA synchronous = NORMAL")  # after a power cut the last entries may be missing, never damaged
        with db:
            db.execute(
                "CREATE TABLE IF NOT EXISTS entries (key TEXT PRIMARY KEY, checksum BLOB NOT NULL, data BLOB NOT NULL)"
            )
            # A table of its own, so that files and versions without origins still work.
            db.execute("CREATE TABLE IF NOT EXISTS origins (key TEXT PRIMARY KEY, expert TEXT, created REAL)")
    except BaseException:
        db.close()
        raise
    return db


def _connect_read_only(path: Path) -> sqlite3.Connection | None:
    """Open a store that cannot be written; None where there is none that can be read."""
    # The write-ahead log needs files beside the store. Where they cannot be made nobody writes, and it is not needed.
    for mode in ("mode=ro", "immutable=1"):
        try:
            db = sqlite3.connect(f"{path.absolute().as_uri()}?{mode}", uri=True, timeout=_WAIT, check_same_thread=False)
        except sqlite3.OperationalError:
            continue
        try:
            db.execute("SELECT count(*) FROM entries LEFT JOIN origins USING (key)").fetchone()
            return db
        except sqlite3.DatabaseError:
            db.close()
    return None


def _use_wal(db: sqlite3.Connection) -> None:
    """Switch to the write-ahead log; SQLite does not wait by itself when two processes switch at once."""
    deadline = time.monotonic() + _WAIT
    while db.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        try:
            db.execute("PRAGMA journal_mode = WAL")
            return  # a file system without shared memory keeps its own mode, which is slower but correct
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
            time.sleep(0.01)


def _insert(db: sqlite3.Connection, rows: list[tuple[str, bytes, bytes]], expert: str) -> None:
    now = time.time()
    db.executemany("INSERT OR REPLACE INTO entries VALUES (?, ?, ?)", rows)
    db.executemany("INSERT OR REPLACE INTO origins VALUES (?, ?, ?)", [(key, expert, now) for key, _, _ in rows])


def read_entry(key: str, checksum: bytes, data: bytes) -> Perception:
    """Read the perception of a row. Raises nearly anything when it is damaged."""
    if checksum != _checksum(key, data):
        raise ValueError("checksum mismatch")
    return unpack(data)


def _checksum(key: str, data: bytes) -> bytes:
    # The key is included, so that an entry copied to another key is noticed.
    return hashlib.blake2b(key.encode() + data, digest_size=16).digest()


def default_store() -> Store:
    """Open the perceptions in the cache folder, which training, evaluation and the command line share."""
    from moai.assets.cache import cache_dir

    return Store(cache_dir() / "perceptions")
