"""``moai compare``: a run beside baseline runs, question by question, from what all of them answered already."""

from __future__ import annotations

from pathlib import Path

import click

from moai.cli import show


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
    each baseline as one more condition, and states of each whether the run with perception on beats it, matches it (the
    interval of the paired difference includes 0) or loses to it, and how many tokens both read. The summary goes to
    RUN/eval/against-BASELINE.json and .md.
    """
    from moai.evaluation.compare import compare_runs
    from moai.evaluation.report.table import render_table

    made = compare_runs(run, baselines, data=data, split=split, full=full, condition=condition, seed=seed)
    show.console().print(render_table(made.summary))
    for line in made.verdicts:
        click.echo(show.plain(line))
    click.echo("written:  " + ", ".join(str(path) for path in made.files))
