"""``moai data``: check the data of a recipe, or a data file, before anything trains."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show

if TYPE_CHECKING:
    from moai.data.check import DataReport
    from moai.data.loss_view import Shown
    from moai.data.samples import Samples
    from moai.perception.corpus.perceptions import CorpusPerceptions
    from moai.recipe.sections import PerceptionSection

EXAMPLES = 5  # sentences that are printed of each problem


@click.group(short_help="Check data before anything trains.")
def data() -> None:
    """Check data before anything trains."""


@data.command(short_help="Read all rows and images, and say what a run would stop at.")
@click.argument("target", metavar="RECIPE|FILE")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--format", "format_name", help="Format of FILE [by its suffix or first row].")
@click.option("--images", help="Folder of the images of FILE [the file's own].")
@click.option("--show", "shown", type=click.IntRange(min=0), default=0, help="Conversations to print [0].")
@click.option("--html", type=click.Path(path_type=Path, dir_okay=False), help="Write these conversations as a page.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object.")
def check(
    target: str,
    overrides: tuple[str, ...],
    format_name: str | None,
    images: str | None,
    shown: int,
    html: Path | None,
    as_json: bool,
) -> None:
    """Read all rows and images, and say what a run would stop at.

    TARGET is a recipe, as for `moai train`, or a file or folder of data. With a recipe, rows too long for the host's
    context and rows without any token to learn are found, too, and images that changed since perception.shards was
    made; --show colours the tokens that carry loss. Exit code 1 where a run would stop.
    """
    from moai.data.check import check_samples

    samples, processor, wanted, corpus = _opened(target, overrides, format_name, images)
    check_file = None if corpus is None else partial(corpus.check_file, content=True)
    with show.progress("checking", len(samples)) as advance:
        report = check_samples(samples, processor, wanted.too_long, advance=advance, check_file=check_file)
    conversations = _shown(samples, processor, wanted.too_long, shown or (20 if html else 0))
    if html is not None:
        from moai.data.loss_view import write_page

        write_page(html, f"Data of {target}", conversations, [*report.counts.items(), *report.bad.items()])
    if as_json:
        click.echo(json.dumps(report.to_dict()))
    else:
        print_report(report, wanted.tolerate)
        for one in conversations[:shown]:
            print_conversation(one)
    if report.stops(wanted.tolerate):
        click.get_current_context().exit(1)


def _opened(target: str, overrides: tuple[str, ...], format_name: str | None, images: str | None) -> Any:
    """Return samples, processor, the recipe's section and its shards; of a file the processor is None."""
    from moai.data.source_check import guess_format, samples_to_check
    from moai.recipe.sections import Data, DataSource

    path = Path(target)
    is_file = format_name or images or "*" in path.name or (path.exists() and path.suffix not in (".yaml", ".yml"))
    if not is_file:
        from moai.recipe.loading import load_recipe
        from moai.training.build import build_processor

        recipe = load_recipe(target, overrides)
        wanted = recipe.data
        splits = (wanted.train_split, wanted.validation_split, recipe.evaluation.split)
        samples = samples_to_check(wanted.sources, splits)
        return samples, build_processor(recipe), wanted, _shards(recipe.perception)
    if overrides:
        raise click.UsageError("KEY=VALUE changes a recipe; a file takes --format and --images")
    format_name = format_name or guess_format(path)
    wanted = Data(sources=[DataSource(format=format_name, path=target, images=images)])
    return samples_to_check(wanted.sources, (wanted.train_split,)), None, wanted, None


def _shards(section: PerceptionSection) -> CorpusPerceptions | None:
    """Open the shards that a recipe reads; None where the experts run."""
    from moai.perception.corpus.perceptions import CorpusPerceptions

    if section.shards is None or not section.experts:
        return None
    return CorpusPerceptions(section.shards, section.experts, section.options)


def _shown(samples: Samples, processor: Any, too_long: str, count: int) -> list[Shown]:
    """Return the first conversations that can be read."""
    from moai.data.loss_view import show_sample
    from moai.data.records import each
    from moai.errors import DataError

    found: list[Shown] = []
    for index, sample in enumerate(each(samples)):
        if len(found) >= count:
            break
        if not isinstance(sample, DataError):
            try:
                found.append(show_sample(sample, samples.place(index), processor, too_long))
            except DataError as error:
                show.warn(f"not shown: {error}")
    return found


def print_report(report: DataReport, tolerate: float) -> None:
    """Print counts, then problems with their first places, then whether a run would stop."""
    table = show.table("rows", "count")
    table.add_row("all", f"{report.total:,}")
    for name, count in sorted(report.counts.items()):
        table.add_row(show.cell(name), f"{count:,}")
    show.console().print(table)
    for word, group in (("bad", report.bad), ("odd", report.odd)):
        for problem, count in group.most_common():
            click.echo(f"{word}: {problem}, {count:,}")
            for sentence in report.examples[problem][:EXAMPLES]:
                click.echo(f"  {show.encodable(show.plain(sentence))}")
            if count > EXAMPLES:
                click.echo("  ..")
    if not report.measured:
        click.echo("lengths and loss masks were not checked: they need a recipe")
    bad = report.bad.total()
    if not bad:
        click.echo("a run would take every row")
    elif report.stops(tolerate):
        click.echo(f"a run would stop: {bad:,} of {report.total:,} rows are bad; fix them, or set data.tolerate")
    else:
        click.echo(f"a run would leave out {bad:,} of {report.total:,} rows (data.tolerate: {tolerate:g})")


def print_conversation(shown: Shown) -> None:
    """Print a conversation; what carries loss is green, or between ``>>`` and ``<<`` where there are no colours."""
    from rich.text import Text

    console = show.console()
    text = Text(f"\n{show.plain(shown.place)}\n", style="bold")
    for segment in shown.segments:
        lines = "\n".join(show.encodable(show.plain(line)) for line in segment.text.split("\n"))
        if segment.learnt and not console.is_terminal:
            lines = f">>{lines}<<"
        text.append(lines, style="not bold green" if segment.learnt else "not bold")
    console.print(text)
