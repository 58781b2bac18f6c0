"""``moai perceive``: what the experts see in images, as a table, as JSON lines, as pictures."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show
from moai.errors import ExpertError, ImageError, nearest

if TYPE_CHECKING:
    from PIL.Image import Image

    from moai.perception.running.perceiver import Perceiver
    from moai.types import Perception

CHUNK = 64  # images held in memory at a time; any number may be given


@click.command(short_help="Show what the experts see in images.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--experts", metavar="A,B", help="Which experts look; all that are installed when left out.")
@click.option(
    "--option",
    "--set",
    "options",
    multiple=True,
    metavar="EXPERT.KEY=VALUE",
    help="Set an expert's option; repeatable. `moai experts NAME` lists them.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object per image and line.")
@click.option(
    "--overlay",
    metavar="PATH",
    help="Draw what was seen. One image: that file. Several: out.png gives out-1.png, out-2.png, ... in the order of "
    "the images; a folder gets one picture per image, named like it.",
)
@click.option("--strict", is_flag=True, help="Exit with code 1 when an expert gave nothing for an image.")
@click.option("--no-cache", is_flag=True, help="Look again, and keep nothing.")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    default="60",
    show_default=True,
    help="Per batch, for all experts or for one: 30,easyocr=120. An expert that takes longer is abandoned.",
)
@click.option(
    "--device",
    default="cpu",
    show_default=True,
    help="Where the experts run, all or one: cuda:0, or cuda:0,shapes=cpu. Different devices work at the same time.",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="What experts loaded at the same time may take, such as 8GB; others wait for their turn. 0: one at a time.",
)
def perceive(
    images: tuple[str, ...],
    experts: str | None,
    options: tuple[str, ...],
    as_json: bool,
    overlay: str | None,
    strict: bool,
    no_cache: bool,
    time_limit: str,
    device: str,
    max_memory: str | None,
) -> None:
    """Show what the experts see in images.

    An image that cannot be read costs one line on stderr and exit code 1, after the others are done. An expert that
    fails is reported and the others go on; --strict turns that into exit code 1.
    """
    from moai.perception.cache.store import default_store

    perceiver = make_perceiver(
        experts,
        options,
        store=None if no_cache else default_store(),
        time_limit=_limits(time_limit),
        device=by_expert("--device", device),
        max_memory=max_memory,
    )
    targets = overlay_paths(overlay, images)
    failed = unreadable = 0
    # Experts that take turns look at all images before the next one is loaded; then pixels are read when needed.
    chunk = CHUNK if max_memory is None else len(images)
    for start in range(0, len(images), chunk):
        for index, image, perception in _look(images, start, chunk, perceiver):
            if perception is None:
                unreadable += 1
                _report_unreadable(images[index], str(image), as_json)
                continue
            failed += show.failures(perception, images[index])
            written = save_overlay(image, perception, targets[index])
            _report(images[index], image, perception, written, as_json)
    if unreadable or (strict and failed):
        click.get_current_context().exit(1)


def make_perceiver(experts: str | None, options: Sequence[str] = (), **settings: Any) -> Perceiver:
    """Build a Perceiver from ``"a,b"`` (None: all that are installed) and ``"expert.key=value"`` options."""
    from moai.perception.running.perceiver import Perceiver

    names = installed_experts() if experts is None else split_names(experts)
    if not names:
        raise ExpertError("no expert is installed; `moai experts` lists what is registered and how to install it")
    return Perceiver(names, options=expert_options(options, names), **settings)


def installed_experts() -> list[str]:
    """Names of the registered experts that can run here and look unasked."""
    from moai.plugins import registry

    return [name for name, expert in registry().experts.items() if expert.by_default and not expert.missing()]


def split_names(text: str) -> list[str]:
    """``"a, b"`` -> ``["a", "b"]``."""
    return list(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))


def expert_options(options: Sequence[str], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``["easyocr.min_score=0.5"]`` -> ``{"easyocr": {"min_score": 0.5}}``; values are read as YAML."""
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
    """``"cuda:0"`` -> itself; ``"cuda:0,shapes=cpu"`` -> ``{"*": "cuda:0", "shapes": "cpu"}``."""
    from moai.perception.running.settings import OTHERS

    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        name, equals, value = (piece.strip() for piece in part.partition("="))
        name, value = (name, value) if equals else (OTHERS, name)
        if not name or not value or name in given:
            raise ExpertError(f"{option} {text}: write one value for all, and EXPERT=VALUE once for each exception")
        given[name] = value
    return text if not given else given[OTHERS] if list(given) == [OTHERS] else given


def _limits(text: str) -> float | dict[str, float]:
    given = by_expert("--time-limit", text)
    try:
        return {name: float(part) for name, part in given.items()} if isinstance(given, dict) else float(given)
    except ValueError as error:
        raise ExpertError(f"--time-limit {text}: write seconds, such as 60 or 30,easyocr=120") from error


def overlay_paths(overlay: str | None, images: Sequence[str]) -> list[Path | None]:
    """Where each image's overlay goes, by its place on the command line; unreadable images keep their number."""
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


def save_overlay(image: Image, perception: Perception, path: Path | None) -> Path | None:
    """Draw and save; ImageError when the path cannot be written."""
    if path is None:
        return None
    from moai.perception.drawing.overlay import draw_overlay

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ImageError(f"the folder {path.parent} cannot be made: {error}; choose another path") from error
    draw_overlay(image, perception, path)
    return path


def _look(images: Sequence[str], start: int, chunk: int, perceiver: Perceiver) -> Iterator[tuple[int, Any, Any]]:
    """Yield (index, image, perception) for a chunk; for an unreadable image (index, error, None)."""
    from moai.data.perceive import Pictures
    from moai.images import read_image

    pictures, errors = {}, {}
    keep = chunk <= CHUNK
    indices = range(start, min(start + chunk, len(images)))
    for index in indices:
        try:
            picture = read_image(images[index])
            pictures[index] = picture if keep else images[index]
        except ImageError as error:
            errors[index] = error
    with show.progress(f"perceiving {start + 1}-{indices[-1] + 1} of {len(images)}", len(pictures)) as advance:
        perceptions = perceiver.perceive(list(pictures.values()) if keep else Pictures(pictures), progress=advance)
    seen = dict(zip(pictures, perceptions, strict=True))
    for index in indices:
        if index in errors:
            yield index, errors[index], None
        else:
            yield index, pictures[index] if keep else read_image(pictures[index]), seen[index]


def _report_unreadable(name: str, reason: str, as_json: bool) -> None:
    click.echo(f"error: {show.plain(reason)}", err=True)
    if as_json:
        click.echo(json.dumps({"image": name, "error": reason}))


def _report(name: str, image: Image, perception: Perception, overlay: Path | None, as_json: bool) -> None:
    from moai.perception.words.verbalize import verbalize

    words = verbalize(perception)
    if as_json:
        size = {"width": image.width, "height": image.height, "overlay": str(overlay) if overlay else None}
        click.echo(json.dumps({"image": name, **size, **perception.to_dict(), "verbalized": words}))
        return
    title = f"{show.plain(name)} ({image.width} x {image.height}), seen by {show.sources(perception)}"
    show.console().print(show.seen(perception, title=title))
    click.echo(f"in words: {show.plain(words) or '(nothing)'}")
    if overlay:
        click.echo(f"overlay:  {overlay}")
    click.echo()
