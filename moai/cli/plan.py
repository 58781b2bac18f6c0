"""``moai plan``: what a recipe needs in memory, before a GPU is rented; what a corpus takes in hours and disk."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from moai.errors import RecipeError

if TYPE_CHECKING:
    from moai.training.memory_plan.plan import Plan

GIB = 2**30
LINE = "Say what a recipe needs in memory, or a corpus in hours and disk."
WORKERS = (1, 2, 4, 8, 16, 32, 64, 128)


@click.command(short_help=LINE)
@click.argument("recipe", required=False)
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--host-shape", metavar="SHAPE", help="Instead of host.reference: layers=32,width=4096,heads=32,kv=8,..")
@click.option("--vision-shape", metavar="SHAPE", help="Instead of the vision encoder: width=1024,layers=24,patch=14,..")
@click.option("--picture", metavar="WxH", help="Size of the images, for a host with its own vision [640x480].")
@click.option("--batch", type=click.IntRange(min=1), help="Samples per step [training.batch_size].")
@click.option("--prompt", type=click.IntRange(min=1), default=64, show_default=True, help="Question tokens per sample.")
@click.option("--aux", type=click.IntRange(min=1), default=256, show_default=True, help="Words of perception.")
@click.option("--images", metavar="N", help="Plan perceiving so many images, such as 10M, in place of a recipe.")
@click.option("--shards", metavar="DIR", help="With --images: the corpus, or sample of one, that was measured.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, in bytes and seconds.")
def plan(
    recipe: str | None,
    overrides: tuple[str, ...],
    batch: int | None,
    picture: str | None,
    images: str | None,
    shards: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Say what a recipe needs in memory, or a corpus in hours and disk.

    The model is built from shapes alone: no weights are read or downloaded, a config.json is enough. RECIPE and
    KEY=VALUE are those of `moai train`. A shape's further keys: ffn, vocab, context (host); heads, ffn (vision).

    With --images and --shards: the hours that workers take to perceive so many images, and the disk, from what
    `moai perceive-dataset` measured in DIR.
    """
    if images is not None or shards is not None:
        if recipe is not None or images is None or shards is None:
            raise click.UsageError("give --images and --shards together, and no recipe")
        plan_corpus(images, shards, as_json)
        return
    if recipe is None:
        raise click.UsageError("name a recipe, or give --images and --shards")
    from moai.recipe.loading import load_recipe
    from moai.training.memory_plan.plan import plan as make_plan

    resolved = load_recipe(recipe, overrides)
    if picture is not None:
        options["picture"] = picture_size(picture, resolved.vision.kind == "host")
    made = make_plan(resolved, **options)
    batch = batch or resolved.training.batch_size
    if as_json:
        click.echo(json.dumps(made.to_dict(batch)))
    else:
        print_plan(made, batch)


def plan_corpus(images: str, shards: str, as_json: bool) -> None:
    """Print the hours and the disk of a corpus."""
    from moai.perception.corpus.estimate import estimate, parse_count

    made = estimate(shards, parse_count(images))
    if as_json:
        click.echo(json.dumps(made.to_dict(WORKERS)))
        return
    run = made.measured
    speed, work = run.images / run.seconds, made.seconds_per_image * 1000
    click.echo(
        f"measured: {run.images:,} images, {speed:.1f} images/s, {work:.1f} ms of a worker and "
        f"{made.bytes_per_image / 1000:.2f} kB per image\n"
        f"by:       {run.workers} workers, engine {run.engine}, device {run.device}, threads {run.threads} each, "
        f"{run.cores} cores"
    )
    click.echo(
        f"\n{made.images:,} images: {made.bytes / 1e9:,.2f} GB of disk\n\n{'workers':>8}{'hours':>12}{'days':>9}"
    )
    for count in sorted({*WORKERS, run.workers}):
        mark = "  as measured" if count == run.workers else ""
        click.echo(f"{count:>8}{made.hours(count):>12,.1f}{made.hours(count) / 24:>9,.1f}{mark}")
    click.echo(
        "\nOther numbers of workers hold where each has cores, or a GPU, and a disk as fast as those measured;\n"
        f"loading the experts ({run.load_seconds / run.workers:.1f} s in a worker) comes on top."
    )


def picture_size(text: str, own_vision: bool) -> tuple[int, int]:
    """Read ``"640x480"`` as width and height; the host needs its own vision."""
    if not own_vision:
        raise RecipeError("--picture is for a host with its own vision (vision.kind: host); set vision.image_size")
    width, _, height = text.partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise RecipeError(f"--picture: '{text}' is no size in pixels; write 640x480")
    return int(width), int(height)


def print_plan(made: Plan, batch: int) -> None:
    """The parts, the activations, and which cards are large enough."""
    click.echo(f"{'part':<14}{'parameters':>14}{'weights':>11}{'gradients':>11}{'optimizer':>11}   GiB")
    for part in made.parts:
        sizes = "".join(f"{size / GIB:>11.2f}" for size in (part.weights, part.gradients, part.optimizer))
        click.echo(f"{part.name:<14}{part.parameters / 1e6:>12,.1f} M{sizes}")
    layers = ", ".join(map(str, made.mixer_layers)) or "none"
    tokens = ", ".join(f"{count} {name}" for name, count in made.tokens.items())
    click.echo(f"mixers in layers {layers}; tokens per sample: {tokens}\n")
    click.echo(f"answering one question          {made.answering() / GIB:>8.1f} GiB")
    for checkpointed, name in ((False, "all activations"), (True, "activations checkpointed")):
        each = made.checkpointed if checkpointed else made.activations
        total = made.training(batch, checkpointed) / GIB
        click.echo(f"training, batch {batch:<16}{total:>8.1f} GiB  {name}, {each / GIB:.2f} per sample")
    click.echo("")
    for card, row in made.to_dict(batch)["cards"].items():
        answers = "answers" if row["answers"] else "too small to answer"
        most = [f"{count} samples a step" if count else "not" for count in (row["batch"], row["batch_checkpointed"])]
        click.echo(f"{card:>4} GiB card: {answers}; trains {most[0]}, {most[1]} with checkpointing")
    click.echo("Estimates: temporary tensors come on top; 1.5 GiB of each card are set aside for them and the driver.")
