"""``moai eval``: a run's accuracy with perception on, off, shuffled and otherwise changed, on the same questions."""

from __future__ import annotations

import random
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show
from moai.cli.main import RESUME, options_given
from moai.errors import CheckpointError, RecipeError

if TYPE_CHECKING:
    from moai.answering import Augmented
    from moai.evaluation.paired import Metric
    from moai.recipe.schema import Recipe
    from moai.types import Perception, Sample


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
) -> None:
    """Measure a run with perception on, off and shuffled.

    The same questions are answered with what the experts saw, without it, and with what they saw in another image:
    only the distance from the last shows that perception is read. Further conditions: the data set's ground truth
    (oracle), one expert missing at a time (leave-one-out), a share of the words replaced (noisy:0.3).

    Table on the terminal; report.html, report.md, report.json, report.png and predictions.jsonl in RUN/eval, of a
    whole split in RUN/eval-full; another data set or split has its own folder. The same command goes on with an
    evaluation that was interrupted.
    """
    if full and limit:
        raise click.UsageError("give --limit or --full, not both")
    recipe = recipe_of(run)
    context = click.get_current_context()
    context.meta[RESUME] = shlex.join(["moai", "eval", str(run), *options_given(context)])

    from moai.answering import load

    chosen = None if full else limit or recipe.evaluation.limit
    names = None if conditions is None else [name.strip() for name in conditions.split(",") if name.strip()]
    settings = {"limit": chosen, "split": split, "conditions": names, "batch_size": batch_size, "seed": seed}
    evaluate_run(load(run), recipe, run, data=data, **settings)


def recipe_of(run: Path) -> Recipe:
    """The resolved recipe that a run folder was trained with."""
    from moai.model.run_format import check_format
    from moai.recipe.loading import load_recipe

    check_format(run)  # before the recipe, whose keys of before would be refused as unknown
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
    data: str | None = None,
    split: str | None = None,
    conditions: Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
) -> dict[str, Any]:
    """Perceive, answer under each condition, print the table, write the report; returns the summary.

    What is left out is the recipe's.
    """
    from moai.evaluation.conditions import expand_conditions
    from moai.evaluation.gates import sample_gates
    from moai.evaluation.journal import Journal
    from moai.evaluation.paired import run_conditions
    from moai.evaluation.report.save import save_report
    from moai.evaluation.report.table import render_table
    from moai.evaluation.summary import summarize

    wanted = recipe.evaluation
    split, size = split or wanted.split, batch_size or wanted.batch_size
    experts = [expert.name for expert in augmented.perceiver.experts]
    names = expand_conditions(conditions or wanted.conditions, experts)
    whole = dataset_of(recipe, split, data)
    samples = draw(whole, limit, seed)
    folder = run / folder_of(recipe, data, split, full=len(samples) == len(whole))
    perceptions, reduced = perceive_views(augmented, samples, names)
    metric = metric_of(recipe, data)
    answering = {"batch_size": size, "seed": seed, "max_new_tokens": wanted.max_new_tokens}
    given = fingerprint(run, samples, perceptions, reduced)
    journal = Journal(folder, {"conditions": names, **answering, "given": given})
    if journal.rows:
        count = len(journal.rows)
        click.echo(f"going on with an interrupted evaluation: {count:,} questions are answered", err=True)
    with show.progress(f"answering ({', '.join(names)})", len(samples) * len(names)) as advance:
        records = run_conditions(
            augmented,
            samples,
            perceptions,
            conditions=names,
            **answering,
            progress=advance,
            reduced=reduced,
            metric=metric,
            journal=journal,
        )
    summary = summarize(
        records,
        split=split,
        seed=seed,
        available=len(whole),
        name=recipe.name,
        data=data or recipe.data.name,
        metric=getattr(metric, "__name__", ""),
    )
    summary["gates"] = sample_gates(augmented, samples, perceptions, size) if "on" in names else None
    images = {sample.image_id: sample.image for sample in samples}
    written = save_report(summary, records, folder, images=images, words=words_of(augmented, perceptions))
    journal.close()  # all is written: forget the answers
    show.console().print(render_table(summary))
    click.echo("written:  " + ", ".join(str(path) for path in written))
    return summary


def perceive_views(
    augmented: Augmented, samples: Sequence[Sample], conditions: Sequence[str]
) -> tuple[dict[str, Perception], dict[str, dict[str, Perception]]]:
    """What all experts saw, and what they see without each one that a condition leaves out."""
    from moai.data.perceive import perceive_samples, perceive_without
    from moai.evaluation.conditions import left_out

    if set(conditions) <= {"off", "oracle"}:
        return {}, {}
    count, reduced = len({sample.image_id for sample in samples}), {}
    with show.progress("perceiving", count) as advance:
        perceptions = perceive_samples(augmented.perceiver, samples, advance)
    for expert in left_out(conditions):
        with show.progress(f"perceiving without {expert}", count) as advance:
            reduced[expert] = perceive_without(augmented.perceiver, expert, samples, advance)
    return perceptions, reduced


def fingerprint(run: Path, samples: Sequence[Sample], *perceptions: Any) -> str:
    """A hash of the run's weights, the questions, and what the experts saw: what decides the answers."""
    from moai.evaluation.journal import digest

    manifest = run / "manifest.json"
    weights = manifest.read_bytes() if manifest.is_file() else b""
    asked = [(s.id, s.image_id, s.question, s.answer, s.kind, s.language, s.truth) for s in samples]
    return digest([weights, asked, *perceptions])


def words_of(augmented: Augmented, perceptions: dict[str, Perception]) -> dict[str, str]:
    """Image id -> the perception as the model was given it."""
    from moai.perception.words.verbalize import verbalize

    speak = getattr(augmented, "words", verbalize)
    return {image: speak(perception) for image, perception in perceptions.items()}


def folder_of(recipe: Recipe, data: str | None, split: str | None, *, full: bool) -> str:
    """``eval``, with the data set and the split where they are not the recipe's, and ``-full`` for a whole split."""
    parts = ["eval"]
    parts += [data] if data and data != recipe.data.name else []
    parts += [split] if split and split != recipe.evaluation.split else []
    return "-".join([*parts, *(["full"] if full else [])])


def dataset_of(recipe: Recipe, split: str, data: str | None = None) -> Sequence[Sample]:
    """All samples of a split of the recipe's data set, or of another."""
    from moai.plugins import registry

    name = data or recipe.data.name
    options = recipe.data.options if name == recipe.data.name else {}
    samples = registry().get_dataset(name)(split, **options)
    if not len(samples):
        raise RecipeError(f"the split '{split}' of {name} is empty; choose another with --split")
    return samples


def metric_of(recipe: Recipe, data: str | None = None) -> Metric | None:
    """The data set's own metric: the attribute ``metric`` of its factory, where it has one."""
    from moai.plugins import registry

    return getattr(registry().get_dataset(data or recipe.data.name), "metric", None)


def draw(samples: Sequence[Sample], limit: int | None, seed: int) -> Sequence[Sample]:
    """At most ``limit`` samples at random, in their own order; a larger limit contains a smaller one."""
    if limit is None or limit >= len(samples):
        return samples
    order = list(range(len(samples)))
    random.Random(seed).shuffle(order)
    return [samples[index] for index in sorted(order[:limit])]
