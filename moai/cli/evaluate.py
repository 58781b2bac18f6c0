"""``moai eval``: a run's accuracy with perception on, off, shuffled and otherwise changed, on the same questions."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moai.cli import show
from moai.cli.main import RESUME, options_given
from moai.cli.options import time_limits

if TYPE_CHECKING:
    from moai.evaluation.evaluate import Evaluation


@click.command("eval", short_help="Measure a run with perception on, off and shuffled.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME", help="Another data set than the recipe's.")
@click.option("--split", help="Which split [the recipe's evaluation.split].")
@click.option(
    "--limit", type=click.IntRange(min=1), help="Questions to draw at random [the recipe's evaluation.limit]."
)
@click.option("--full", is_flag=True, help="All questions of the split.")
@click.option(
    "--perception",
    "conditions",
    metavar="A,B",
    help="Out of on, off, shuffled, oracle, leave-one-out, without:EXPERT, noisy:P [evaluation.conditions].",
)
@click.option("--batch-size", type=click.IntRange(min=1), help="Questions at a time [evaluation.batch_size].")
@click.option(
    "--shots",
    type=click.IntRange(min=0),
    default=0,
    help="Solved questions of the training split before each question.",
)
@click.option("--rationale", is_flag=True, help="Two calls: describe the images, then answer with the description.")
@click.option(
    "--rationale-prompt", metavar="TEXT", help="What the first call asks [Introduce this picture in detail:]."
)
@click.option("--rationale-tokens", type=click.IntRange(min=1), help="Limit of a description's tokens [64].")
@click.option("--time-limit", metavar="SECONDS", help="Of an expert for an image, as in moai perceive [the run's].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw, the shuffling and the intervals.")
def evaluate(
    run: Path,
    data: str | None,
    split: str | None,
    limit: int | None,
    full: bool,
    conditions: str | None,
    batch_size: int | None,
    seed: int,
    shots: int,
    rationale: bool,
    rationale_prompt: str | None,
    rationale_tokens: int | None,
    time_limit: str | None,
) -> None:
    """Measure a run with perception on, off and shuffled.

    The same questions are answered with the image's perception, without it, and with another image's: only the
    distance from the last shows that perception is read. Further conditions: the data set's ground truth
    (oracle), one expert missing at a time (leave-one-out), a share of the words replaced (noisy:0.3).

    --shots 4 puts four solved questions of the training split before each question, as turns of one conversation;
    --rationale asks for a description of the images first. Samples that are answered by choosing, such as those of the
    data set raven, are scored by the probability of a word.

    Table on the terminal; report.html, report.md, report.json, report.png and predictions.jsonl in RUN/eval, of a
    whole split in RUN/eval-full; another data set or split has its own folder. The same command goes on with an
    evaluation that was interrupted.
    """
    if full and limit:
        raise click.UsageError("give --limit or --full, not both")
    if not rationale and (rationale_prompt or rationale_tokens):
        raise click.UsageError("--rationale-prompt and --rationale-tokens need --rationale")
    context = click.get_current_context()
    context.meta[RESUME] = shlex.join(["moai", "eval", str(run), *options_given(context)])

    limits = {} if time_limit is None else {"time_limit": time_limits(time_limit)}

    show.loading(f"the run {run}")
    from moai.evaluation.evaluate import evaluate_run
    from moai.evaluation.prompting import Rationale

    given = {"request": rationale_prompt, "max_new_tokens": rationale_tokens}
    asking = Rationale(**{name: value for name, value in given.items() if value}) if rationale else None

    names = None if conditions is None else [name.strip() for name in conditions.split(",") if name.strip()]
    draw = {"data": data, "split": split, "limit": limit, "full": full, "seed": seed}
    asked = {"conditions": names, "batch_size": batch_size, "shots": shots, "rationale": asking}
    print_evaluation(evaluate_run(run, **asked, **limits, **draw))


def print_evaluation(evaluation: Evaluation) -> None:
    """Print the table of an evaluation, and the files that were written."""
    from moai.evaluation.report.table import render_table

    show.console().print(render_table(evaluation.summary))
    click.echo("written:  " + ", ".join(str(path) for path in evaluation.files))
