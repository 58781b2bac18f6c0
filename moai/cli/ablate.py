"""``moai ablate``: train and evaluate a folder of ablations alike, and set them beside their base in one table."""

from __future__ import annotations

import contextlib
import gc
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moai.cli import show
from moai.cli.main import RESUME, options_given
from moai.errors import CheckpointError, MoaiError

if TYPE_CHECKING:
    from moai.evaluation.ablation.plan import Ablation
    from moai.evaluation.ablation.run import Outcome

CONDITIONS = ("on", "off", "shuffled")


@click.command(short_help="Train and evaluate a folder of ablations, and print one table.")
@click.argument("folder", default="ablations")
@click.option("--only", multiple=True, metavar="NAME", help="Only this recipe, beside the base; may be repeated.")
@click.option("--set", "overrides", multiple=True, metavar="KEY=VALUE", help="Set a key for all; may be repeated.")
@click.option("--steps", type=click.IntRange(min=1), help="Shorten every training to so many steps.")
@click.option(
    "--run", "root", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/ablations"),
    show_default=True, help="Where each recipe's run folder and the table go.",
)  # fmt: skip
@click.option("--split", help="Evaluate on this split [the recipe's data.validation_split].")
@click.option("--limit", type=click.IntRange(min=2), default=1000, show_default=True, help="Questions to draw.")
@click.option("--full", is_flag=True, help="All questions of the split.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw, the shuffling and the intervals.")
@click.option("--dry-run", is_flag=True, help="Say what would be trained, and train nothing.")
def ablate(
    folder: str,
    only: tuple[str, ...],
    overrides: tuple[str, ...],
    steps: int | None,
    root: Path,
    split: str | None,
    limit: int,
    full: bool,
    seed: int,
    dry_run: bool,
) -> None:
    """Train and evaluate a folder of ablations, and print one table.

    FOLDER [ablations] is a folder, or the name of one in ./recipes or among the recipes that come with moai
    (ablations, ablations-guided, ablations-scenes). Its recipes all extend one: the base, which is trained as well.
    Each is evaluated with perception on, off and shuffled on the same questions of the validation split. The table
    says what each changes, what it scores, and how far it is from the base; it is also written to RUN/ablations.md,
    .json and .png, anew after each training.

    The same command goes on where it stopped: finished trainings and evaluations stay. A recipe that fails is a row
    that says why, and the others go on.
    """
    from moai.evaluation.ablation.plan import plan_ablations

    planned = plan_ablations(folder, only, overrides, steps)
    if dry_run:
        _list(planned, root)
        return
    for ablation in planned:
        _check_free(ablation, root / ablation.name)
    context = click.get_current_context()
    context.meta[RESUME] = shlex.join(["moai", "ablate", folder, *options_given(context)])
    outcomes = _work(planned, root, split, None if full else limit, seed)
    _print(outcomes, root, seed)
    failed = [outcome.name for outcome in outcomes if outcome.failure]
    if failed:
        raise MoaiError(f"{', '.join(failed)} failed; the table says why, and the same command tries again")


def _list(planned: list[Ablation], root: Path) -> None:
    from moai.evaluation.ablation.table import changes

    table = show.table("recipe", "changes", "steps", "state")
    for ablation in planned:
        training = ablation.recipe.training
        done = (root / ablation.name / "manifest.json").is_file()
        state = "trained" if done else "begun" if (root / ablation.name / "recipe.yaml").is_file() else "to train"
        told = changes({"changed": ablation.changed})
        table.add_row(ablation.name, show.cell(told), str(training.step1.steps + training.step2.steps), state)
    show.console().print(table)


def _check_free(ablation: Ablation, run: Path) -> None:
    path = run / "recipe.yaml"
    if path.is_file() and path.read_text() != ablation.recipe.to_yaml():
        raise CheckpointError(
            f"{run} was trained with other settings; name another folder with --run, or remove this one"
        )


def _work(planned: list[Ablation], root: Path, split: str | None, limit: int | None, seed: int) -> list[Outcome]:
    from moai.evaluation.ablation.run import Outcome, summarize_ablations
    from moai.evaluation.ablation.table import save_ablations

    outcomes: list[Outcome] = []
    for number, ablation in enumerate(planned, 1):
        click.echo(f"[{number}/{len(planned)}] {ablation.name}", err=True)
        run = root / ablation.name
        try:
            with contextlib.redirect_stdout(
                sys.stderr
            ):  # each evaluation's own table; stdout is for the one at the end
                _train(ablation, run)
                evaluation = _evaluate(ablation, run, split, limit, seed)
        except (MoaiError, RuntimeError) as error:  # RuntimeError: torch's, for instance of a loss that is not finite
            if not outcomes:
                raise
            show.warn(f"{ablation.name} failed: {error}")
            outcomes.append(Outcome(ablation.name, ablation.changed, run, failure=str(error)))
        else:
            outcomes.append(Outcome(ablation.name, ablation.changed, run, evaluation))
        gc.collect()  # a model is full of cycles, and the next one needs the room
        save_ablations(summarize_ablations(outcomes, seed=seed), root)
    return outcomes


def _train(ablation: Ablation, run: Path) -> None:
    if (run / "manifest.json").is_file():
        return
    from moai.training.trainer import train

    train(ablation.recipe, run, resume=(run / "recipe.yaml").is_file())


def _evaluate(ablation: Ablation, run: Path, split: str | None, limit: int | None, seed: int) -> Path:
    """The evaluation's folder; what is there already is kept when it is of these questions and newer than the run."""
    from moai.answering import load
    from moai.cli.evaluate import dataset_of, evaluate_run, folder_of

    recipe = ablation.recipe
    split = split or recipe.data.validation_split
    available = len(dataset_of(recipe, split))
    count = min(limit or available, available)
    folder = run / folder_of(recipe, None, split, full=count == available)
    if not _evaluated(folder, run, count, seed):
        evaluate_run(load(run), recipe, run, limit=limit, split=split, conditions=CONDITIONS, seed=seed)
    return folder


def _evaluated(folder: Path, run: Path, count: int, seed: int) -> bool:
    from moai.evaluation.report.save import read_report

    path = folder / "report.json"
    if not path.is_file() or path.stat().st_mtime < (run / "manifest.json").stat().st_mtime:
        return False
    report = read_report(folder)
    asked = (report["n"], report["seed"], tuple(report["conditions"]))
    return asked == (count, seed, CONDITIONS)


def _print(outcomes: list[Outcome], root: Path, seed: int) -> None:
    from moai.evaluation.ablation.run import summarize_ablations
    from moai.evaluation.ablation.table import render_ablations

    console = show.console()
    console.print(render_ablations(summarize_ablations(outcomes, seed=seed), console.width))
    click.echo("written:  " + ", ".join(str(root / f"ablations.{kind}") for kind in ("md", "json", "png")))
