"""``moai compare``: a run beside a baseline run, question by question, from what both answered already."""

from __future__ import annotations

import json
from pathlib import Path

import click

from moai.cli import show


@click.command(short_help="Set a run beside a baseline run, question by question.")
@click.argument("run", type=click.Path(path_type=Path))
@click.argument("baseline", type=click.Path(path_type=Path))
@click.option("--full", is_flag=True, help="Compare what `moai eval --full` answered.")
@click.option("--condition", default="off", show_default=True, help="Which of the baseline's conditions counts.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the intervals.")
def compare(run: Path, baseline: Path, full: bool, condition: str, seed: int) -> None:
    """Set a run beside a baseline run, question by question.

    Both must have been evaluated on the same questions. Prints the run's table with the baseline as one more condition,
    and the paired difference with its interval; the summary goes to RUN/eval/against-BASELINE.json.
    """
    from moai.evaluation.report import read_records, render_table, summarize, with_baseline

    folder = "eval-full" if full else "eval"
    records = with_baseline(read_records(run / folder), read_records(baseline / folder), condition, baseline.name)
    report = json.loads((run / folder / "report.json").read_text())
    summary = summarize(records, split=report["split"], seed=seed, available=report["available"], name=run.name)
    show.console().print(render_table(summary))
    path = run / folder / f"against-{baseline.name}.json"
    path.write_text(json.dumps(summary, indent=2) + "\n")
    click.echo(f"written:  {path}")
