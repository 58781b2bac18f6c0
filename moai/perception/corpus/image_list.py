"""List the images of a corpus in a file: which image is in which row of which shard, each id once.

Knows: SQLite. The list is the work of the workers, and later the index by which rows are found; it is never in memory
as a whole.
"""

from __future__ import annotations

import hashlib
import os
import sqlite3
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from moai.assets.replacing import replacing
from moai.errors import CorpusError
from moai.perception.corpus.arrow import storable

NAME = "images.sqlite"
_TABLES = """
CREATE TABLE images (id TEXT PRIMARY KEY, shard INTEGER NOT NULL, row INTEGER NOT NULL, path BLOB NOT NULL)
WITHOUT ROWID;
CREATE TABLE shards (shard INTEGER PRIMARY KEY, source TEXT NOT NULL, rows INTEGER NOT NULL, digest TEXT NOT NULL);
"""


class ListedImage(NamedTuple):
    """An image of a corpus: its id, and the path of its file as the input names it."""

    id: str
    path: str


class Shard(NamedTuple):
    """A shard of a corpus: its number, what its images come from, their number, and the hash of their list."""

    number: int
    source: str
    size: int
    digest: str


class ImageList:
    """Read the list of a corpus. It may be used by several threads, and pickled to other processes.

    Raises:
        CorpusError: the file is missing or damaged.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.path = Path(folder) / NAME
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._pid = 0
        self.shards = [Shard(*row) for row in self._rows("SELECT shard, source, rows, digest FROM shards ORDER BY 1")]

    def __reduce__(self) -> tuple[type[ImageList], tuple[Path]]:
        return ImageList, (self.path.parent,)

    def __len__(self) -> int:
        return sum(shard.size for shard in self.shards)

    @property
    def digest(self) -> str:
        """The hash of all ids and paths and their shards."""
        return hashlib.sha256("\n".join(shard.digest for shard in self.shards).encode()).hexdigest()

    def ids(self) -> Iterator[str]:
        """Iterate over the ids in the order of the shards."""
        for shard in self.shards:
            yield from (image.id for image in self.images(shard.number))

    def images(self, shard: int) -> list[ListedImage]:
        """Read the images of one shard, in the order of its rows."""
        rows = self._rows("SELECT id, path FROM images WHERE shard = ? ORDER BY row", shard)
        return [ListedImage(id, os.fsdecode(path)) for id, path in rows]

    def find(self, id: str) -> tuple[int, int] | None:
        """Find the shard and the row of an image; None where the corpus has no such image."""
        rows = self._rows("SELECT shard, row FROM images WHERE id = ?", storable(id))
        return (rows[0][0], rows[0][1]) if rows else None

    def close(self) -> None:
        """Close the file; the next call opens it again."""
        with self._lock:
            if self._connection is not None and self._pid == os.getpid():
                self._connection.close()
            self._connection = None

    def _rows(self, query: str, *values: str | int) -> list[tuple]:
        with self._lock:
            try:
                if self._connection is None or self._pid != os.getpid():  # a fork may not use its parent's connection
                    uri = f"{self.path.absolute().as_uri()}?mode=ro&immutable=1"
                    self._connection = sqlite3.connect(uri, uri=True, check_same_thread=False)
                    self._pid = os.getpid()
                return self._connection.execute(query, values).fetchall()
            except sqlite3.DatabaseError as error:
                raise CorpusError(
                    f"{self.path} cannot be read ({error}); delete it and run `moai perceive-dataset` again"
                ) from error


def write_list(
    folder: Path, images: Iterable[tuple[str, str, str]], shard_size: int | None, limit: int | None = None
) -> ImageList:
    """Write the list of a corpus and open it; one that is there has to be of the same images.

    Args:
        folder: of the corpus.
        images: source, id and path of each image, in order; of several equal ids only the first is listed.
        shard_size: images of a shard; None makes one shard of each source.
        limit: of the images; None lists all.

    Raises:
        CorpusError: an id names two files, there are no images, the folder holds a list of other images, or it cannot
            be written.
    """
    path = folder / NAME
    try:
        with replacing(path if not path.exists() else path.with_name(f"new-{NAME}")) as part:
            _write(part, images, shard_size, limit)
        if not (new := path.with_name(f"new-{NAME}")).exists():
            return ImageList(folder)
        before, now = _digests(path), _digests(new)
        new.unlink()
    except (sqlite3.OperationalError, OSError) as error:
        raise CorpusError(f"{path} cannot be written: {error}; free disk space, or name another --out") from error
    if before != now:
        raise CorpusError(
            f"{folder} was begun with other images or another --shard-size; go on with these, or name another --out"
        )
    return ImageList(folder)


def _digests(path: Path) -> list[tuple]:
    try:
        db = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
        try:
            return db.execute("SELECT shard, source, rows, digest FROM shards ORDER BY 1").fetchall()
        finally:
            db.close()
    except sqlite3.DatabaseError as error:
        raise CorpusError(f"{path} is damaged ({error}); delete it and run the same command again") from error


def _write(path: Path, images: Iterable[tuple[str, str, str]], shard_size: int | None, limit: int | None) -> None:
    db = sqlite3.connect(path)
    try:
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLES)
        writer = _Writer(db, shard_size)
        for source, id, file in images:
            writer.append(source, id, file)
            if writer.count == limit:
                break
        writer.finish()
        if not writer.count:
            raise CorpusError("there are no images in it; name a folder of pictures, a list of them, or a recipe")
        db.execute("CREATE UNIQUE INDEX places ON images (shard, row)")
        db.commit()
    finally:
        db.close()


class _Writer:
    """Assign each new image the next row of the current shard."""

    def __init__(self, db: sqlite3.Connection, shard_size: int | None) -> None:
        self.db, self.shard_size = db, shard_size
        self.count = self.shard = self.row = 0
        self.source: str | None = None
        self._digest = hashlib.sha256()

    def append(self, source: str, id: str, path: str) -> None:
        ended = self.row == self.shard_size if self.shard_size is not None else source != self.source
        if self.source is not None and ended:
            self.finish()
        self.source = source if self.source is None or ended else self.source
        id, file = storable(id), os.fsencode(path)
        place = (id, self.shard, self.row, file)
        if self.db.execute("INSERT OR IGNORE INTO images VALUES (?, ?, ?, ?)", place).rowcount:
            self._digest.update(len(id).to_bytes(4, "big") + id.encode() + len(file).to_bytes(4, "big") + file)
            self.row, self.count = self.row + 1, self.count + 1
            return
        [(other,)] = self.db.execute("SELECT path FROM images WHERE id = ?", (id,)).fetchall()
        if other != file:
            first, second = storable(os.fsdecode(other)), storable(path)
            raise CorpusError(f"the image id '{id}' names two files, {first} and {second}; give each image its own id")

    def finish(self) -> None:
        """End the current shard, where there is one."""
        if self.source is None:
            return
        row = (self.shard, storable(self.source), self.row, self._digest.hexdigest())
        self.db.execute("INSERT INTO shards VALUES (?, ?, ?, ?)", row)
        self.shard, self.row, self.source, self._digest = self.shard + 1, 0, None, hashlib.sha256()
