"""``moai train``: a recipe to a run folder."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from moai.cli import show
from moai.cli.main import RESUME


@click.command(short_help="Train a recipe's mixers around its frozen host.")
@click.argument("recipe")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--resume", is_flag=True, help="Go on from the last checkpoint in the run folder.")
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path, file_okay=False), help="Run folder [runs/<recipe name>]."
)
@click.option(
    "--dry-run", is_flag=True, help="Check all that needs no weights, and print the recipe resolved; train nothing."
)
def train(recipe: str, overrides: tuple[str, ...], resume: bool, run_dir: Path | None, dry_run: bool) -> None:
    """Train a recipe's mixers around its frozen host.

    RECIPE is a YAML file, or the name of one in ./recipes; a name that is not there means a recipe that comes with
    moai or a plugin, such as easy-vqa, scenes or ablations/step2-only. KEY=VALUE changes a key by its dotted name,
    such as training.batch_size=8; the value is read as YAML.
    """
    show.loading(f"the recipe {recipe}")
    from moai.recipe.loading import load_recipe

    resolved = load_recipe(recipe, overrides)
    if dry_run:
        from moai.training.check import check_recipe

        for note in check_recipe(resolved):
            click.echo(f"not checked: {note}", err=True)
        click.echo(resolved.to_yaml(), nl=False)
        return
    run_dir = run_dir or Path("runs") / resolved.name
    words = ["moai", "train", recipe, *overrides, "--run", str(run_dir), "--resume"]
    click.get_current_context().meta[RESUME] = shlex.join(words)

    from moai.training.trainer import train as run_training

    made = run_training(resolved, run_dir, resume=resume)
    click.echo(f"trained:  {made}")
    click.echo(f"next:     moai eval {shlex.quote(str(made))}")
