"""The format ``captions``: pictures with a text each, in a folder, in JSON rows, or in WebDataset tar shards.

Knows: the three layouts.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, validate_call

from moai.data.formats.jsonl import image_names, text_of
from moai.data.records import ConcatenatedRecords, ListedRecords, Records
from moai.data.row_index import Place
from moai.data.samples import LazySamples
from moai.data.source import Source
from moai.data.tar_records import PICTURES, TarPair, TarRecords
from moai.errors import DataError, RecipeError
from moai.types import IMAGE, Sample


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def captions(source: Source, prompt: str | None = None) -> LazySamples:
    """Read pictures with captions.

    Args:
        source: a folder with ``a.png`` and ``a.txt`` side by side; JSON rows ``{"image", "caption"}``; or tar shards.
        prompt: the question whose answer the caption is; left out, picture and caption are a document, of which all
            text is learnt.
    """
    path = source.paths[0]
    if path.is_dir():
        records: Records = _in_folder(path)
        return LazySamples(records, lambda row, place: _from_files(source, row, place, prompt))
    if path.suffix == ".tar":
        shards = [TarRecords(one) for one in source.paths]
        records = shards[0] if len(shards) == 1 else ConcatenatedRecords(shards)
        return LazySamples(
            records, lambda row, place: _from_tar(source, row, place, prompt), group=lambda row: row.text
        )
    return LazySamples(source.records(), lambda row, place: _from_row(source, row, place, prompt))


def _in_folder(folder: Path) -> ListedRecords:
    """List pictures and texts of a folder and of those in it; one without the other is a row, too, and a bad one."""
    found: dict[str, dict[str, str]] = {}
    for path in sorted(folder.rglob("*")):
        kind = "image" if path.suffix.lower() in PICTURES else "text" if path.suffix == ".txt" else None
        if kind is not None:
            name = path.relative_to(folder)
            found.setdefault(name.with_suffix("").as_posix(), {})[kind] = name.as_posix()
    if not found:
        raise RecipeError(f"{folder} holds no pictures with texts; write a.txt beside a.png, or name another folder")
    names = [row.get("text", row.get("image", "")) for row in found.values()]
    return ListedRecords(list(found.values()), [Place(str(folder / name), 1) for name in names])


def _from_files(source: Source, row: Mapping[str, str], place: Place, prompt: str | None) -> Sample:
    if "image" not in row:
        raise DataError(f"no picture beside {row['text']}; add one, or remove the text", "missing image")
    if "text" not in row:
        raise DataError(f"no text beside {row['image']}; write it, or remove the picture", "missing caption")
    try:
        caption = (source.paths[0] / row["text"]).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"the caption cannot be read ({error}); save it as UTF-8") from error
    return _sample(source, place, row["image"], row["image"], caption, prompt)


def _from_row(source: Source, row: Mapping[str, Any], place: Place, prompt: str | None) -> Sample:
    names = image_names(row)
    if len(names) != 1:
        raise DataError(f"{len(names)} images for one caption; write one", "missing image")
    return _sample(source, place, row.get("id"), names[0], text_of(row, "caption"), prompt)


def _from_tar(source: Source, row: TarPair, place: Place, prompt: str | None) -> Sample:
    if not row.image:
        raise DataError("the image is empty (0 bytes); pack it again", "empty image")
    return _sample(source, place, None, (row.image, str(place)), row.text, prompt)


def _sample(source: Source, place: Place, id: Any, image: Any, caption: str, prompt: str | None) -> Sample:
    if not caption.strip():
        raise DataError("the caption is empty; write one, or leave the row out", "empty caption")
    if prompt is None:
        return source.sample(place, id, [("text", (IMAGE, caption))], [image], loss="all")
    return source.sample(place, id, [("user", (IMAGE, prompt)), ("assistant", caption)], [image])
