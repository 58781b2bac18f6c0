"""Which samples a check reads: those of a recipe's sources, each row once, or those of one file.

Knows: sources, and what the first row of a file looks like.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

from moai.data.records import json_records
from moai.data.samples import Samples, concatenated
from moai.data.sources import SourceSettings, open_source
from moai.errors import DataError, RecipeError

FORMATS = {"conversations": "llava", "instruction": "instructions", "text_list": "interleaved", "texts": "interleaved"}
FORMATS |= {"caption": "captions"}
SUFFIXES = {".parquet": "hf", ".tar": "captions"}


def samples_to_check(sources: Sequence[SourceSettings], splits: Sequence[str]) -> Samples:
    """Open all samples of the sources that a run of these splits reads, each once.

    Args:
        sources: as the recipe says.
        splits: names of the splits; the first is the one that is trained on.

    Raises:
        RecipeError, DataError: a source cannot be opened.
    """
    return concatenated(list(_parts(sources, tuple(dict.fromkeys(splits)))))


def _parts(sources: Sequence[SourceSettings], splits: tuple[str, ...]) -> Iterator[Samples]:
    for source in sources:
        whole = source.model_copy(update={"hold_out": {}})  # what is held out is read with the rest
        names = splits[:1] if isinstance(source.path, str) else [n for n in splits if n not in source.hold_out]
        for name in names:
            part = open_source(whole, name, splits[0])
            if part is not None:
                yield part


def guess_format(path: Path) -> str:
    """Return the format that a file or folder looks like, by its suffix or the keys of its first row.

    Raises:
        DataError: it cannot be read.
        RecipeError: nothing is there.
    """
    if "*" in path.name:
        path = next(iter(sorted(path.parent.glob(path.name))), path)
    if not path.exists():
        raise RecipeError(f"there is no recipe and no file {path}; fix the path")
    if path.suffix in SUFFIXES:
        return SUFFIXES[path.suffix]
    if path.is_dir():
        return "captions"
    try:
        first = json_records([path])[0]
    except DataError as error:
        raise DataError(f"{error} (or name the format with --format)") from error
    return next((format for key, format in FORMATS.items() if key in first), "jsonl")
