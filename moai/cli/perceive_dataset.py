"""``moai perceive-dataset``: the experts' findings in all images of a corpus, as Parquet shards."""

from __future__ import annotations

import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli.main import RESUME, options_given
from moai.cli.options import by_expert, expert_options, split_names, time_limits
from moai.errors import ExpertError
from moai.perception.running.time_limit import TIME_LIMIT

if TYPE_CHECKING:
    from moai.perception.corpus.manifest import Manifest
    from moai.training.corpus import CorpusInput

LINE = "Perceive a whole data set, as Parquet shards."


@click.command("perceive-dataset", short_help=LINE)
@click.argument("given", metavar="RECIPE|FILE|FOLDER")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--out", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of the shards.")
@click.option("--experts", metavar="A,B", help="Which experts run, for a file or a folder [all that are installed].")
@click.option("--option", "--set", "options", multiple=True, metavar="EXPERT.KEY=VALUE", help="Set an expert's option.")
@click.option("--image-column", "column", default="image", show_default=True, help="Of a file: where the images are.")
@click.option("--shard-size", type=click.IntRange(min=1), default=1000, show_default=True, help="Images of a shard.")
@click.option("--limit", type=click.IntRange(min=1), help="Only so many images, the first ones: a sample to measure.")
@click.option("--engine", type=click.Choice(["local", "ray"]), default="local", show_default=True, help="Who works.")
@click.option("--workers", type=click.IntRange(min=1), default=1, show_default=True, help="Processes, or Ray's actors.")
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True, help="CPU threads of each worker.")
@click.option("--device", default="cpu", show_default=True, help="Where the experts run: cuda:0, or cuda:0,shapes=cpu.")
@click.option(
    "--time-limit",
    metavar="SECONDS",
    help=f"Of an expert for an image, as in moai perceive [the recipe's, or {TIME_LIMIT:g}].",
)
def perceive_dataset(
    given: str,
    overrides: tuple[str, ...],
    out: Path,
    experts: str | None,
    options: tuple[str, ...],
    column: str,
    shard_size: int,
    limit: int | None,
    **workers: Any,
) -> None:
    """Perceive a whole data set, as Parquet shards.

    RECIPE: the images of all its splits, by its experts. FOLDER: its pictures, or the lists in it, each of which
    becomes a shard. FILE: JSON lines, CSV or Parquet with an image column, whose names begin at the file's folder.

    The same command goes on after an interruption. An image that cannot be read is a row with its error, and an expert
    that fails is in its image's row. With perception.shards a recipe reads DIR in place of running the experts.
    """
    from moai.perception.corpus.inputs import refuse_inside
    from moai.perception.corpus.run import perceive_corpus
    from moai.perception.corpus.stopping import Terminated
    from moai.training.corpus import open_input

    refuse_inside(out, Path(given))
    context = click.get_current_context()
    words = ["moai", "perceive-dataset", given, *overrides, *options_given(context)]
    context.meta[RESUME] = shlex.join(words)
    opened = open_input(given, overrides, column)
    names, chosen = chosen_experts(opened, experts, options)
    size = None if opened.sharded else shard_size
    try:
        made = perceive_corpus(
            opened.images, out, names, options=chosen, shard_size=size, limit=limit,
            workers=make_workers(opened, **workers), report=show_progress,
        )  # fmt: skip
    except Terminated:
        click.echo(f"\nstopped; continue with: {context.meta[RESUME]}", err=True)
        context.exit(143)
    print_manifest(made, out)


def chosen_experts(opened: CorpusInput, experts: str | None, options: tuple[str, ...]) -> tuple[list[str], dict]:
    """Return the names and options of the experts: the recipe's, or those that the command names."""
    from moai.perception.running.settings import installed_experts

    if opened.experts is not None:
        if experts is not None or options:
            raise ExpertError(
                "a recipe names its experts; leave out --experts and --option, or write perception.experts=[..]"
            )
        return list(opened.experts), dict(opened.options or {})
    names = installed_experts() if experts is None else split_names(experts)
    if not names:
        raise ExpertError("no expert is installed; `moai experts` lists what is registered and how to install it")
    return names, expert_options(options, names)


def make_workers(
    opened: CorpusInput, engine: Any, workers: int, threads: int, device: str, time_limit: str | None
) -> Any:
    """Build the workers' settings from the command's options; the time limit may be the recipe's."""
    from moai.perception.corpus.run import Workers

    limits = opened.time_limit if time_limit is None else time_limits(time_limit)
    return Workers(engine, workers, threads, by_expert("--device", device), limits)


@contextmanager
def show_progress(images: int, done: int) -> Iterator[Callable[[int], None]]:
    """Show a bar with images per second and the time that is left."""
    from moai.training.progress import Progress

    if done:
        click.echo(f"going on: {done:,} of {images:,} images are done", err=True)
    started, new = time.monotonic(), 0
    with Progress().bar("perceiving", images, done) as advance:

        def more(count: int) -> None:
            nonlocal new
            new += count
            rate = new / max(time.monotonic() - started, 1e-9)
            left = (images - done - new) / rate
            advance(
                count,
                f"{rate:.1f} images/s, " + (f"{left / 3600:.1f} h" if left >= 3600 else f"{left:.0f} s") + " left",
            )

        yield more


def print_manifest(made: Manifest, out: Path) -> None:
    """Print the counts of a finished corpus."""
    click.echo(f"perceived: {made.images - made.unreadable:,} of {made.images:,} images, {len(made.shards)} shards")
    if made.unreadable:
        click.echo(f"unread:    {made.unreadable:,} images; the column `error` says why")
    for expert, count in made.failures.items():
        click.echo(f"failed:    '{expert}' gave nothing for {count:,} images; the column `failures` says why")
    click.echo(f"written:   {out} ({made.bytes / 1e6:,.1f} MB); perception.shards={shlex.quote(str(out))} reads it")
