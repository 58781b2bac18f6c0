"""Open annotation files: tell their format, and list the pictures that they describe."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from moai.errors import ExpertError
from moai.types import Perception, categories_by_id
from moai_precomputed import labelme, lines
from moai_precomputed.index import Entry, name_parts, size_of

MAX_BYTES = 2**31  # of one JSON file, which is parsed as a whole; JSON lines have no limit


def read_files(files: Sequence[str], images: str = "", crowds: bool = False) -> Iterator[Entry]:
    """List the entries of annotation files.

    Args:
        files: paths of files or folders.
        images: the COCO file that results refer to.
        crowds: as for ``Perception.from_coco``.

    Raises:
        ExpertError: a file that cannot be read, or is in no known format.
    """
    for file in files:
        path = Path(file).expanduser()
        if path.is_dir():
            yield from labelme.read_folder(path, file)
        elif not path.is_file():
            raise ExpertError(f"{file} does not exist; check the option 'file' of expert 'precomputed'")
        elif path.suffix.lower() in (".jsonl", ".ndjson"):
            yield from lines.read_lines(path, file)
        else:
            yield from _read_json(path, file, images, crowds)


def read_json(path: Path, name: str) -> Any:
    """Parse a JSON file; every mistake in it is an ExpertError."""
    try:
        if (size := os.path.getsize(path)) > MAX_BYTES:
            raise ExpertError(f"{name} has {size:,} bytes; at most {MAX_BYTES:,} are read, so write it as JSON lines")
        with open(path, encoding="utf-8") as file:
            return json.load(file)
    except OSError as error:
        raise ExpertError(f"{name} cannot be read: {error.strerror or error}; check the file") from error
    except (ValueError, RecursionError) as error:
        raise ExpertError(f"{name} is no JSON ({str(error)[:120]}); write it again") from error


def _read_json(path: Path, name: str, images: str, crowds: bool) -> Iterator[Entry]:
    data = read_json(path, name)
    if isinstance(data, dict) and "shapes" in data:
        yield labelme.entry_of(data, path, name, path.name, ())
    elif isinstance(data, dict) and "images" in data:
        yield from _coco(data, data.get("annotations"), name, name, crowds)
    elif isinstance(data, list):
        if not images:
            raise ExpertError(
                f"{name} is a list, as COCO results are, which lacks images and categories; name the file that has "
                "them with the option 'images'"
            )
        about = read_json(Path(images).expanduser(), images)
        if not isinstance(about, dict) or "images" not in about:
            raise ExpertError(f"{images} is no COCO file; it lacks 'images'")
        yield from _coco(about, data, name, images, crowds)
    else:
        raise ExpertError(
            f"{name} is in no known format; COCO has 'images', 'annotations' and 'categories', LabelMe has 'shapes', "
            "and files of JSON lines end in .jsonl"
        )


def _coco(about: dict[str, Any], annotations: Any, name: str, images: str, crowds: bool) -> Iterator[Entry]:
    """List the pictures of a COCO file, with the annotations, or the results of ``name``."""
    for key, value in (("images", about.get("images")), ("categories", about.get("categories", []))):
        if not isinstance(value, list) or not all(isinstance(one, dict) for one in value):
            raise ExpertError(f"{images}: '{key}' is a list of objects; write it again")
    if not isinstance(annotations, list):
        raise ExpertError(f"{name}: 'annotations' is a list of objects; write it again")
    categories = _categories(about.get("categories", []), images)
    by_image: dict[Any, list[Any]] = {}
    for image in about["images"]:
        id = image.get("id")
        if not isinstance(id, (int, str)):
            raise ExpertError(f"{images}: an image has the id {id!r:.60}; it is a number or a text")
        if id in by_image:
            raise ExpertError(f"{images}: two images have the id {id!r:.60}; give each its own")
        by_image[id] = []
    for annotation in annotations:
        if not isinstance(annotation, dict):
            raise ExpertError(f"{name}: an annotation is an object, not {annotation!r:.60}")
        if "segments_info" in annotation:
            raise ExpertError(f"{name} is panoptic, with its masks in PNG files; convert it to COCO's detection format")
        id = annotation.get("image_id")
        if not isinstance(id, (int, str)) or id not in by_image:
            raise ExpertError(f"{name}: an annotation is of image {id!r:.60}, which 'images' does not list")
        by_image[id].append(annotation)
    for image in about["images"]:
        where = f"{name}, image {image['id']!r:.60}"
        parts = name_parts(image.get("file_name"), where)
        yield Entry(name, where, parts, "", _reader(image, by_image[image["id"]], categories, crowds))


def _reader(image: dict[str, Any], annotations: list[Any], categories: dict[Any, Any], crowds: bool) -> Any:
    def read(width: int, height: int) -> Perception:
        size = size_of((image.get("width"), image.get("height")), width, height)
        return Perception.from_coco(_once(annotations), categories, *size, crowds=crowds)

    return read


def _once(annotations: list[Any]) -> list[Any]:
    """Leave out what is repeated, id and all, as when two files that overlap were joined."""
    seen: dict[Any, list[Any]] = {}
    kept = []
    for one in annotations:
        same = seen.setdefault(one["id"], []) if isinstance(one.get("id"), (int, str)) else []
        if one not in same:
            same.append(one)
            kept.append(one)
    return kept


def _categories(given: list[dict[str, Any]], name: str) -> dict[Any, Any]:
    try:
        return categories_by_id(given)
    except ExpertError as error:
        raise ExpertError(f"{name}: {error}") from error
