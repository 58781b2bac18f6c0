"""``moai eval``: a run's accuracy with perception on, off and shuffled, on the same questions."""

from __future__ import annotations

import random
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show
from moai.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from moai.answering import Augmented
    from moai.data.samples import Sample
    from moai.perception.types import Perception
    from moai.training.recipe import Recipe


@click.command("eval", short_help="Measure a run with perception on, off and shuffled.")
@click.argument("run", type=click.Path(path_type=Path))
@click.option(
    "--limit", type=click.IntRange(min=1), help="Questions to draw at random [the recipe's evaluation.limit]."
)
@click.option("--full", is_flag=True, help="All questions of the split.")
@click.option("--split", help="Which split [the recipe's evaluation.split].")
@click.option("--perception", "conditions", metavar="A,B", help="Out of on, off, shuffled [evaluation.conditions].")
@click.option("--batch-size", type=click.IntRange(min=1), help="Questions at a time [evaluation.batch_size].")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the draw, the shuffling and the intervals.")
def evaluate(
    run: Path,
    limit: int | None,
    full: bool,
    split: str | None,
    conditions: str | None,
    batch_size: int | None,
    seed: int,
) -> None:
    """Measure a run with perception on, off and shuffled.

    The same questions are answered with what the experts saw, without it, and with what they saw in another image:
    only the distance from the last shows that perception is read. Table on the terminal; report.json, report.png and
    predictions.jsonl in RUN/eval, of a whole split in RUN/eval-full.
    """
    if full and limit:
        raise click.UsageError("give --limit or --full, not both")
    recipe = recipe_of(run)

    from moai.answering import load

    chosen = None if full else limit or recipe.evaluation.limit
    names = None if conditions is None else [name.strip() for name in conditions.split(",") if name.strip()]
    evaluate_run(load(run), recipe, run, limit=chosen, split=split, conditions=names, batch_size=batch_size, seed=seed)


def recipe_of(run: Path) -> Recipe:
    """The resolved recipe that a run folder was trained with."""
    from moai.training.recipe_file import load_recipe

    path = run / "recipe.yaml"
    if not path.is_file():
        raise CheckpointError(f"{run} is no run folder: it has no recipe.yaml; `moai train` makes one")
    return load_recipe(path)


def evaluate_run(
    augmented: Augmented,
    recipe: Recipe,
    run: Path,
    *,
    limit: int | None,
    split: str | None = None,
    conditions: Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Perceive, answer under each condition, print the table, write ``run/eval``; returns the summary.

    What is left out is the recipe's.
    """
    from moai.data.perceive import perceive_samples
    from moai.evaluation.paired import run_conditions
    from moai.evaluation.report import render_table, save_report, summarize

    wanted = recipe.evaluation
    split, conditions = split or wanted.split, list(conditions or wanted.conditions)
    whole = dataset_of(recipe, split)
    samples = draw(whole, limit, seed)
    perceptions: dict[str, Perception] = {}
    if set(conditions) != {"off"}:
        with show.progress("perceiving", len({sample.image_id for sample in samples})) as advance:
            perceptions = perceive_samples(augmented.perceiver, samples, advance)
    with show.progress(f"answering ({', '.join(conditions)})", len(samples) * len(conditions)) as advance:
        records = run_conditions(
            augmented,
            samples,
            perceptions,
            conditions,
            batch_size=batch_size or wanted.batch_size,
            seed=seed,
            progress=advance,
            max_new_tokens=wanted.max_new_tokens,
        )
    summary = summarize(records, split=split, seed=seed, available=len(whole), name=recipe.name)
    written = save_report(summary, records, run / ("eval" if summary["sampled"] else "eval-full"))
    show.console().print(render_table(summary))
    click.echo("written:  " + ", ".join(str(path) for path in written))
    return summary


def dataset_of(recipe: Recipe, split: str) -> Sequence[Sample]:
    """All samples of a split of the recipe's data set."""
    from moai.plugins import registry

    samples = registry().get_dataset(recipe.data.name)(split, **recipe.data.options)
    if not len(samples):
        raise RecipeError(f"the split '{split}' of {recipe.data.name} is empty; choose another with --split")
    return samples


def draw(samples: Sequence[Sample], limit: int | None, seed: int) -> Sequence[Sample]:
    """At most ``limit`` samples at random, in their own order; a larger limit contains a smaller one."""
    if limit is None or limit >= len(samples):
        return samples
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    return [samples[index] for index in sorted(order[:limit])]
