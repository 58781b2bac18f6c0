"""``moai ablate``: train and evaluate a folder of ablations alike, and set them beside their base in one table."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moai.cli import show
from moai.cli.main import RESUME, options_given
from moai.errors import MoaiError

if TYPE_CHECKING:
    from moai.evaluation.ablation.plan import Ablation
    from moai.evaluation.ablation.run import Outcome


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
        print_plan(planned, root)
        return
    context = click.get_current_context()
    context.meta[RESUME] = shlex.join(["moai", "ablate", folder, *options_given(context)])

    from moai.evaluation.ablation.run import run_ablations

    outcomes = run_ablations(planned, root, split=split, limit=None if full else limit, seed=seed)
    print_outcomes(outcomes, root, seed)
    failed = [outcome.name for outcome in outcomes if outcome.failure]
    if failed:
        raise MoaiError(f"{', '.join(failed)} failed; the table says why, and the same command tries again")


def print_plan(planned: list[Ablation], root: Path) -> None:
    """Print what would be trained, and what is trained already."""
    from moai.evaluation.ablation.table import changes

    table = show.table("recipe", "changes", "steps", "state")
    for ablation in planned:
        steps = str(sum(stage.steps or 0 for stage in ablation.recipe.stages))
        done = (root / ablation.name / "manifest.json").is_file()
        state = "trained" if done else "begun" if (root / ablation.name / "recipe.yaml").is_file() else "to train"
        listed = changes({"changed": ablation.changed})
        table.add_row(ablation.name, show.cell(listed), steps, state)
    show.console().print(table)


def print_outcomes(outcomes: list[Outcome], root: Path, seed: int) -> None:
    """Print the table of finished ablations, and the files that were written."""
    from moai.evaluation.ablation.run import summarize_ablations
    from moai.evaluation.ablation.table import render_ablations

    console = show.console()
    console.print(render_ablations(summarize_ablations(outcomes, seed=seed), console.width))
    click.echo("written:  " + ", ".join(str(root / f"ablations.{kind}") for kind in ("md", "json", "png")))
