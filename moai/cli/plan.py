"""``moai plan``: what a recipe needs in memory, before a GPU is rented."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from moai.errors import RecipeError

if TYPE_CHECKING:
    from moai.training.memory_plan.plan import Plan

GIB = 2**30
LINE = "Say what a recipe needs in memory, before a GPU is rented."


@click.command(short_help=LINE)
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--host-shape", metavar="SHAPE", help="Instead of host.reference: layers=32,width=4096,heads=32,kv=8,..")
@click.option("--vision-shape", metavar="SHAPE", help="Instead of the vision encoder: width=1024,layers=24,patch=14,..")
@click.option("--picture", metavar="WxH", help="Size of the images, for a host with its own vision [640x480].")
@click.option("--batch", type=click.IntRange(min=1), help="Samples per step [training.batch_size].")
@click.option("--prompt", type=click.IntRange(min=1), default=64, show_default=True, help="Question tokens per sample.")
@click.option("--aux", type=click.IntRange(min=1), default=256, show_default=True, help="Words of perception.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON object, in bytes.")
def plan(
    recipe: str, overrides: tuple[str, ...], batch: int | None, picture: str | None, as_json: bool, **options: Any
) -> None:
    """Say what a recipe needs in memory, before a GPU is rented.

    The model is built from shapes alone: no weights are read or downloaded, a config.json is enough. RECIPE and
    KEY=VALUE are those of `moai train`. A shape's further keys: ffn, vocab, context (host); heads, ffn (vision).
    """
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
