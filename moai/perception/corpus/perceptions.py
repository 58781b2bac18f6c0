"""Read the perceptions of a corpus by image id, one at a time.

Knows: the list, in which an id is found, and the shards, of which a group of rows is read. Nothing is in memory but
the rows read last.
"""

from __future__ import annotations

import functools
import json
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from moai.assets.hashes import sha256_file
from moai.errors import CorpusError
from moai.expert import Expert
from moai.perception.corpus.arrow import GROUP, import_pyarrow
from moai.perception.corpus.expert_settings import check_settings, expert_settings
from moai.perception.corpus.image_list import ImageList
from moai.perception.corpus.manifest import MANIFEST, Manifest, read_manifest
from moai.perception.corpus.shard import shard_path
from moai.perception.running.failure_counts import is_most
from moai.types import Perception

log = logging.getLogger("moai")
_FILES, _GROUPS = 32, 4  # files that stay open, and groups of rows that stay decoded
_COLUMNS = 512  # shards of which sizes or hashes of images stay in memory: 8 or 68 kB for 1,000 images


class CorpusPerceptions(Mapping[str, Perception]):
    """Read perceptions of a finished corpus: image id -> perception, which is read when it is asked for.

    It may be used by several threads, and pickled to other processes.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        experts: Sequence[str | Expert],
        options: Mapping[str, Mapping[str, Any]] | None = None,
        ids: Iterable[str] | None = None,
    ) -> None:
        """Open a corpus, and check that it is what is asked for.

        Args:
            folder: of the corpus.
            experts: of whom the perceptions have to be: names, or experts that are built.
            options: per expert's name.
            ids: of the images that are needed; all of the corpus where left out.

        Raises:
            CorpusError: the corpus is unfinished or damaged, lacks an image, or was made by other experts, or with
                other versions, options or weights.
        """
        import_pyarrow()
        wanted = expert_settings(experts, options or {})
        self._open(Path(folder), None if ids is None else tuple(dict.fromkeys(ids)))
        fix = "perceive the corpus again with these, or leave perception.shards out"
        check_settings(self.manifest.experts, wanted, str(folder), fix)
        for id in self._ids or ():
            self._place(id)

    def _open(self, folder: Path, ids: tuple[str, ...] | None) -> None:
        self.folder, self._ids, self._lock = folder, ids, threading.Lock()
        self.manifest: Manifest = read_manifest(folder)
        self._list = ImageList(folder)
        if self._list.digest != self.manifest.images_key:
            raise CorpusError(f"{self._list.path} is not the list of {folder / MANIFEST}; perceive the corpus again")
        self._file = functools.lru_cache(_FILES)(self._open_file)
        self._group = functools.lru_cache(_GROUPS)(self._read_group)
        self._column = functools.lru_cache(_COLUMNS)(self._read_column)

    def __reduce__(self) -> tuple:
        return _reopened, (self.folder, self._ids)

    def __repr__(self) -> str:
        """Name what decides the perceptions; equal for equal ones, wherever the corpus is."""
        known = self.manifest
        return f"CorpusPerceptions(experts={known.experts_key}, images={known.images_key}, ids={self._ids})"

    def __len__(self) -> int:
        return len(self._list) if self._ids is None else len(self._ids)

    def __iter__(self) -> Iterator[str]:
        return self._list.ids() if self._ids is None else iter(self._ids)

    def __contains__(self, id: object) -> bool:
        return isinstance(id, str) and self._list.find(id) is not None

    def __getitem__(self, id: str) -> Perception:
        """Read the perception of an image.

        Raises:
            CorpusError: the corpus lacks the image, the image could not be read, or a shard is damaged. It is never a
                KeyError, so that ``get`` does not turn a missing image into one without findings.
        """
        shard, row = self._place(id)
        with self._lock:
            found = self._group(shard, row // GROUP)[row % GROUP]
        if found["perception"] is None:
            raise CorpusError(f"image '{id}' has no perception: {found['error']}")
        return Perception.from_dict(json.loads(found["perception"]))

    def check_file(self, id: str, image: Any, content: bool = False) -> None:
        """Refuse an image file that is not the one that was perceived.

        Args:
            id: of the image.
            image: as a sample has it. What is no path is not checked, and neither is a row without a perception.
            content: compare hashes too, for which the whole file is read; else its size alone is compared.

        Raises:
            CorpusError: the file has another size or content, or cannot be read; or the corpus lacks the image.
        """
        if not isinstance(image, (str, os.PathLike)):
            return
        shard, row = self._place(id)
        known = self._value(shard, row, "bytes")
        if known is None:
            return
        fix = f"delete {shard_path(self.folder, shard)} and run `moai perceive-dataset` again, or put the file back"
        try:
            size = os.stat(image).st_size
            if size != known:
                raise CorpusError(f"image '{id}' was {known:,} bytes when it was perceived and is {size:,} now; {fix}")
            if content and sha256_file(Path(image)) != self._value(shard, row, "sha256"):
                raise CorpusError(f"image '{id}' has another content than when it was perceived; {fix}")
        except OSError as error:
            raise CorpusError(f"image '{id}' cannot be read ({error.strerror}); {fix}") from error

    def check_failures(self) -> None:
        """Log how many images of the corpus each expert gave nothing for, and refuse one that failed for most.

        Raises:
            CorpusError: an expert failed for more than half of the images that could be read.
        """
        images = self.manifest.images - self.manifest.unreadable
        for expert, count in self.manifest.failures.items():
            if is_most(count, images):
                raise CorpusError(
                    f"expert '{expert}' gave nothing for {count:,} of {images:,} images in {self.folder} "
                    f"({self._first_reason(expert)}); perceive them again with a longer --time-limit or where it "
                    "works, or without it in perception.experts"
                )
            log.warning("expert '%s' gave nothing for %d of %d images in %s", expert, count, images, self.folder)

    def _first_reason(self, expert: str) -> str:
        for shard in range(len(self.manifest.shards)):
            with self._lock:
                rows = self._column(shard, "failures").to_pylist()
            for failure in (failure for row in rows for failure in row or ()):
                if failure["expert"] == expert:
                    return failure["reason"]
        return "its shards do not say why"

    def _place(self, id: str) -> tuple[int, int]:
        place = self._list.find(id)
        if place is None:
            raise CorpusError(
                f"{self.folder} has no row of image '{id}'; perceive the data set that it is from, or leave "
                "perception.shards out"
            )
        return place

    def _open_file(self, shard: int) -> Any:
        return import_pyarrow()[1].ParquetFile(shard_path(self.folder, shard))

    def _value(self, shard: int, row: int, column: str) -> Any:
        with self._lock:
            return self._column(shard, column)[row].as_py()

    def _read_column(self, shard: int, column: str) -> Any:
        arrow, _ = import_pyarrow()
        try:
            return self._file(shard).read(columns=[column]).column(0)
        except (arrow.ArrowException, OSError) as error:
            path = shard_path(self.folder, shard)
            raise CorpusError(f"{path} is damaged or missing ({error}); delete it and perceive again") from error

    def _read_group(self, shard: int, group: int) -> list[dict[str, Any]]:
        arrow, _ = import_pyarrow()
        path = shard_path(self.folder, shard)
        try:
            return self._file(shard).read_row_group(group, columns=["perception", "error"]).to_pylist()
        except (arrow.ArrowException, OSError, IndexError) as error:
            raise CorpusError(f"{path} is damaged or missing ({error}); delete it and perceive again") from error


def _reopened(folder: Path, ids: tuple[str, ...] | None) -> CorpusPerceptions:
    made = CorpusPerceptions.__new__(CorpusPerceptions)
    made._open(folder, ids)
    return made
