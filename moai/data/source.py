"""Give a format what it reads: files, images by name, and samples whose images stand at their places.

Knows: paths and conversations. Image names come from data files, so that none leads out of the images' folder.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any, Literal

from moai.data.records import Records, json_records
from moai.data.row_index import Place
from moai.data.turns import check_turns, place_images
from moai.errors import DataError, RecipeError
from moai.types import Conversation, Sample, Turn


class Source:
    """Hold one source of a recipe as a format gets it.

    Args:
        format: name of the format, for messages.
        split: name of the split that is read; a format whose files hold several splits picks it.
        path: file, folder, or pattern with ``*``; None where the format reads by name.
        name: of a registered data set, or hub id; None where the format reads files.
        images: folder of the images; None for the folder of the file.
        placeholders: what happens to a row with images whose text places none: ``"insert"`` puts them before the
            first user turn, ``"refuse"`` makes it an error.
    """

    def __init__(
        self,
        format: str,
        split: str = "train",
        path: str | Path | None = None,
        name: str | None = None,
        images: str | Path | None = None,
        placeholders: Literal["insert", "refuse"] = "insert",
    ) -> None:
        self.format, self.split, self.path, self.name = format, split, path, name
        self.images, self.placeholders = images, placeholders

    @cached_property
    def paths(self) -> list[Path]:
        """The files or folders that ``path`` names, sorted where it is a pattern.

        Raises:
            RecipeError: no path, or nothing there.
        """
        if self.path is None:
            raise RecipeError(f"format {self.format} reads files; give data.sources a path")
        path = Path(self.path).expanduser()
        if "*" in path.name:
            found = sorted(path.parent.glob(path.name))
        else:
            found = [path] if path.exists() else []
        if not found:
            raise RecipeError(f"there is nothing at {self.path}; fix the path in data.sources")
        return found

    @property
    def folder(self) -> Path:
        """The folder that image names begin at.

        Raises:
            RecipeError: the recipe names one that is not there.
        """
        if self.images is None:
            first = self.paths[0]
            return first if first.is_dir() else first.parent
        folder = Path(self.images).expanduser()
        if not folder.is_dir():
            raise RecipeError(f"there is no folder {self.images}; fix images in data.sources")
        return folder

    def records(self) -> Records:
        """Open the files as JSON rows, lazily.

        Raises:
            DataError: a file cannot be read, or is no JSON.
        """
        for path in self.paths:
            if path.is_dir():
                raise RecipeError(f"{path} is a folder, and format {self.format} reads files; name a file in it")
        return json_records(self.paths)

    def image(self, name: Any) -> tuple[Path, str]:
        """Return an image's path and id: the folder as the recipe writes it, and the name in it.

        The id is made of the path alone: hashing the contents of a million images would take hours.

        Raises:
            DataError: no file name, one that leads out of the folder, or a file that is missing or empty.
        """
        if not isinstance(name, str) or not name.strip():
            raise DataError(
                f"an image is a file name, not {name!r:.60}; write the name of a file in the images' folder"
            )
        inside = PurePosixPath(name)
        if "://" in name or name.startswith("data:") or "\0" in name:
            raise DataError(f"image {name!r:.80} is no file name; download the picture and name its file")
        path = self._folder / inside
        outside = ".." in inside.parts or (inside.is_absolute() and not self._holds(path))
        if outside:
            said = f"image {name!r:.80} leads out of {self._folder}; name a file in it, or set images"
            raise DataError(said, "image outside its folder")
        try:
            empty = path.stat().st_size == 0
        except (OSError, ValueError):
            said = f"image {path} is missing; copy it there, or set the source's images folder"
            raise DataError(said, "missing image") from None
        if empty:
            raise DataError(f"image {path} is empty (0 bytes); copy it again", "empty image")
        return path, path.as_posix()

    def sample(
        self,
        place: Place,
        id: Any,
        turns: Iterable[tuple[str, Any]],
        images: Sequence[Any] = (),
        *,
        loss: Literal["assistant", "all"] = "assistant",
        **about: Any,
    ) -> Sample:
        """Build a sample of a row.

        Args:
            place: of the row, which names the sample where it has no id.
            id: the row's own, of any type; None for none.
            turns: role and content of each turn; the content a text, or a tuple of texts and ``moai.IMAGE``.
            images: names of the images, or pairs of an image and its id, in the order of their places.
            loss: what training learns, as in :class:`moai.Conversation`.
            about: ``kind``, ``answers``, ``language``.

        Raises:
            DataError: images and their places do not match, turns are out of order, or an answer is empty.
        """
        found = [one if isinstance(one, tuple) else self.image(one) for one in images]
        placed = place_images([Turn(*turn) for turn in turns], len(found), self.placeholders)
        check_turns(placed)
        conversation = Conversation(tuple(placed), tuple(image for image, _ in found), loss)
        named = f"{os.path.basename(place.file)}:{place.line}" if id is None else str(id)
        return Sample(named, conversation, tuple(name for _, name in found), **about)

    @cached_property
    def _folder(self) -> Path:
        return self.folder

    def _holds(self, path: Path) -> bool:
        """Return whether an absolute name is allowed: where the recipe's folder is absolute and holds it."""
        return self.images is not None and self._folder.is_absolute() and path.is_relative_to(self._folder)
