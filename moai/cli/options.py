"""Parse what options of several commands hold: lists of names, settings per expert, paths of overlays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moai.errors import ExpertError, nearest


def split_names(text: str) -> list[str]:
    """Split ``"a, b"`` into ``["a", "b"]``."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def expert_options(options: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Parse ``["easyocr.min_score=0.5"]`` -> ``{"easyocr": {"min_score": 0.5}}``; values are read as YAML."""
    from moai.recipe.loading import split_override
    from moai.recipe.yaml_file import parse_yaml

    parsed: dict[str, dict[str, Any]] = {}
    for option in options:
        key, text = split_override(option)
        expert, dot, name = key.partition(".")
        if not dot or not name:
            raise ExpertError(f"--option {option}: write EXPERT.KEY=VALUE, such as shapes.{key}={text}")
        if expert not in names:
            raise ExpertError(
                f"--option {option}: '{expert}' is not among the experts used here{nearest(expert, names)}"
            )
        parsed.setdefault(expert, {})[name] = parse_yaml(text, f"--option {option}")
    return parsed


def by_expert(option: str, text: str) -> str | dict[str, str]:
    """Parse one setting for all experts or for some.

    ``"cuda:0"`` -> itself; ``"cuda:0,shapes=cpu"`` -> ``{"*": "cuda:0", "shapes": "cpu"}``.
    """
    from moai.perception.running.settings import OTHERS

    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name, value = (name, value) if equals else (OTHERS, name)
        if not name or not value or name in given:
            raise ExpertError(f"{option} {text}: write one value for all, and EXPERT=VALUE once for each exception")
        given[name] = value
    return text if not given else given[OTHERS] if list(given) == [OTHERS] else given


def time_limits(text: str) -> float | None | dict[str, float | None]:
    """Parse ``"60"``, ``"30,easyocr=120"`` or ``"none"``, for no limit, as seconds."""
    given = by_expert("--time-limit", text)
    try:
        return {name: _limit(part) for name, part in given.items()} if isinstance(given, dict) else _limit(given)
    except ValueError as error:
        raise ExpertError(f"--time-limit {text}: write seconds, such as 60 or 30,easyocr=120, or none") from error


def _limit(text: str) -> float | None:
    return None if text == "none" else float(text)


def overlay_paths(overlay: str | None, images: Sequence[str]) -> list[Path | None]:
    """Name each image's overlay by the image's place on the command line; unreadable images count as well."""
    if overlay is None:
        return [None] * len(images)
    path = Path(overlay)
    if path.is_dir() or overlay.endswith("/") or not path.suffix:
        return _in_folder(path, images)
    if len(images) == 1:
        return [path]
    return [path.with_name(f"{path.stem}-{number}{path.suffix}") for number in range(1, len(images) + 1)]


def _in_folder(folder: Path, images: Sequence[str]) -> list[Path | None]:
    taken: set[str] = set()
    paths: list[Path | None] = []
    for image in images:
        stem, name, number = Path(image).stem or "image", Path(image).stem or "image", 2
        while name in taken:  # two pictures of one name from two folders
            name, number = f"{stem}-{number}", number + 1
        taken.add(name)
        paths.append(folder / f"{name}.png")
    return paths
