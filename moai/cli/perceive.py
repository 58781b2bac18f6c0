"""``moai perceive``: what the experts find in images, as a table, as JSON lines, as pictures."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moai.cli import show
from moai.cli.options import by_expert, expert_options, overlay_paths, split_names, time_limits
from moai.errors import ExpertError
from moai.perception.running.time_limit import TIME_LIMIT

if TYPE_CHECKING:
    from PIL.Image import Image

    from moai.perception.running.perceiver import Perceiver
    from moai.types import Perception


@click.command(short_help="Show what the experts find in images.")
@click.argument("images", nargs=-1, required=True, metavar="IMAGE...")
@click.option("--experts", metavar="A,B", help="Which experts run; all that are installed when left out.")
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
    help="Draw the findings. One image: that file. Several: out.png gives out-1.png, out-2.png, ... in the order of "
    "the images; a folder gets one picture per image, named like it.",
)
@click.option(
    "--relations",
    type=click.IntRange(min=0),
    default=5,
    show_default=True,
    help="How many relations an overlay shows, the strongest first.",
)
@click.option("--strict", is_flag=True, help="Exit with code 1 when an expert gave nothing for an image.")
@click.option("--no-cache", is_flag=True, help="Perceive anew, and write nothing to the cache.")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    default=f"{TIME_LIMIT:g}",
    show_default=True,
    help="Of an expert for an image, for all experts or for one: 30,easyocr=120; none for no limit.",
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
    relations: int,
    strict: bool,
    no_cache: bool,
    time_limit: str,
    device: str,
    max_memory: str | None,
) -> None:
    """Show what the experts find in images.

    An image that cannot be read costs one line on stderr and exit code 1, after the others are done. An expert that
    fails is reported and the others go on; --strict turns that into exit code 1.
    """
    from moai.data.perceive_images import CHUNK, perceive_images
    from moai.perception.drawing.overlay import draw_overlay
    from moai.training.progress import Progress

    perceiver = make_perceiver(experts, options, no_cache, time_limit, device, max_memory)
    targets = overlay_paths(overlay, images)
    failed = unreadable = 0
    # Experts that take turns perceive all images before the next one is loaded.
    chunk = CHUNK if max_memory is None else len(images)
    for index, result in enumerate(perceive_images(perceiver, images, chunk=chunk, progress=Progress())):
        if result.perception is None:
            unreadable += 1
            _report_unreadable(images[index], str(result.error), as_json)
            continue
        failed += show.failures(result.perception, images[index])
        target = targets[index]
        if target is not None:
            draw_overlay(result.image, result.perception, target, relations)
        _report(images[index], result.image, result.perception, target, as_json)
    if unreadable or (strict and failed):
        click.get_current_context().exit(1)


def make_perceiver(
    experts: str | None,
    options: Sequence[str],
    no_cache: bool,
    time_limit: str,
    device: str,
    max_memory: str | None,
) -> Perceiver:
    """Build a perceiver from the command's options; without ``--experts``, of all that are installed."""
    from moai.perception.cache.store import default_store
    from moai.perception.running.perceiver import Perceiver
    from moai.perception.running.settings import installed_experts

    names = installed_experts() if experts is None else split_names(experts)
    if not names:
        raise ExpertError("no expert is installed; `moai experts` lists what is registered and how to install it")
    return Perceiver(
        names,
        options=expert_options(options, names),
        store=None if no_cache else default_store(),
        time_limit=time_limits(time_limit),
        device=by_expert("--device", device),
        max_memory=max_memory,
    )


def _report_unreadable(name: str, reason: str, as_json: bool) -> None:
    click.echo(f"error: {show.plain(reason)}", err=True)
    if as_json:
        click.echo(json.dumps({"image": name, "error": reason}))


def _report(name: str, image: Image, perception: Perception, overlay: Path | None, as_json: bool) -> None:
    from moai.perception.json_lines import perceived_line
    from moai.perception.words.verbalize import verbalize

    words = verbalize(perception)
    if as_json:
        click.echo(json.dumps(perceived_line(name, image.size, perception, words, overlay)))
        return
    show.print_findings(perception, about=f"{name} ({image.width} x {image.height}), ")
    click.echo(f"in words: {show.plain(words) or '(nothing)'}")
    if overlay:
        click.echo(f"overlay:  {overlay}")
    click.echo()
