"""``moai compare``: a run beside baseline runs, question by question, from what all of them answered already."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import click

from moai.cli import show
from moai.errors import CheckpointError


@click.command(short_help="Set a run beside a baseline run, question by question.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("baselines", type=click.Path(path_type=Path), nargs=-1, required=True, metavar="BASELINE...")
@click.option("--data", metavar="NAME", help="Compare what `moai eval --data NAME` answered.")
@click.option("--split", help="Compare what `moai eval --split` answered.")
@click.option("--full", is_flag=True, help="Compare what `moai eval --full` answered.")
@click.option("--condition", metavar="NAME", help="Which of the baselines' conditions counts [on, else off].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the intervals.")
def compare(
    run: Path,
    baselines: tuple[Path, ...],
    data: str | None,
    split: str | None,
    full: bool,
    condition: str | None,
    seed: int,
) -> None:
    """Set a run beside a baseline run, question by question.

    Several baselines may be given; all must have been evaluated on the same questions. Prints the run's table with
    each baseline as one more condition, and says of each whether the run with perception on beats it, matches it (the
    interval of the paired difference includes 0) or loses to it, and how many tokens both read. The summary goes to
    RUN/eval/against-BASELINE.json and .md.
    """
    from moai.evaluation.report.markdown import render_markdown
    from moai.evaluation.report.save import read_records, read_report, with_baseline, write_json, write_text
    from moai.evaluation.report.table import render_table
    from moai.evaluation.report.verdict import verdict
    from moai.evaluation.summary import summarize

    folder = _folder(run, data, split, full)
    records, report = read_records(run / folder), read_report(run / folder)
    if any("on" not in record.predictions for record in records):
        raise CheckpointError(f"{run} was not evaluated with perception on; evaluate it with --perception on,..")
    names = names_of(baselines)
    for baseline, name in zip(baselines, names, strict=True):
        records = with_baseline(records, read_records(baseline / _folder(baseline, data, split, full)), condition, name)
    told = {key: report.get(key, "") for key in ("split", "data", "metric")}
    summary = summarize(records, seed=seed, available=report["available"], name=_name(run), **told)
    summary["baselines"] = names
    show.console().print(render_table(summary))
    for name in names:
        click.echo(show.plain(verdict(summary, name)))
    path = run / folder / f"against-{'-and-'.join(name.replace('/', '-') for name in names)}.json"
    write_json(path, summary)
    write_text(path.with_suffix(".md"), render_markdown(summary))
    click.echo(f"written:  {path}, {path.with_suffix('.md')}")


def names_of(paths: Sequence[Path]) -> list[str]:
    """The folders' names; their parents' as well where two are called alike."""
    names = [_name(path) for path in paths]
    if len(set(names)) == len(names):
        return names
    longer = ["/".join(path.resolve().parts[-2:]) for path in paths]
    if len(set(longer)) < len(longer):
        raise CheckpointError("two baselines are the same folder; name each once")
    return longer


def _name(path: Path) -> str:
    return path.resolve().name


def _folder(run: Path, data: str | None, split: str | None, full: bool) -> str:
    if data is None and split is None:
        return "eval-full" if full else "eval"
    from moai.cli.evaluate import folder_of, recipe_of

    return folder_of(recipe_of(run), data, split, full=full)
