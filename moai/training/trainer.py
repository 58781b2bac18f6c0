"""One training run, from a recipe to a run folder.

Knows: recipes, data and the model. What a run does, stage by stage, is in ``run``.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from accelerate import PartialState

from moai.assets.replacing import replacing
from moai.data.quarantine import FILE as QUARANTINE
from moai.data.quarantine import LOCK
from moai.errors import CheckpointError, RecipeError
from moai.recipe.schema import Recipe
from moai.training.arguments import check_arguments, check_sharding
from moai.training.checkpoints import FOLDER
from moai.training.log import NAME
from moai.training.processes import naming_lost_processes
from moai.training.progress import Progress
from moai.training.run import Run
from moai.training.run_state import is_recipe_of

RECIPE = "recipe.yaml"


def train(recipe: Recipe, run_dir: str | Path, *, resume: bool = False, progress: Progress | None = None) -> Path:
    """Train the stages of a recipe and return the run folder, which ``moai.load`` opens.

    Started by ``torchrun`` or ``accelerate launch``, every process takes its share of each batch and the gradients are
    averaged; the first process writes the folder.

    Args:
        recipe: what to train.
        run_dir: where everything goes: ``recipe.yaml``, checkpoints, the log, and at the end the model.
        resume: go on from the last checkpoint; losses and weights then equal those of an uninterrupted run on CPU.
        progress: where progress is shown; a bar on a terminal by default.

    Raises:
        MoaiError: a recipe that does not fit together, a run folder that is taken or of another recipe, no run to
            resume, or a training that cannot go on.
        SystemExit: of code 143, after a checkpoint: the process was asked to end (SIGTERM).
    """
    run_dir = Path(run_dir)
    check_arguments(recipe.training.trainer)
    check_sharding(recipe)
    _check_free(recipe, run_dir, resume)
    if recipe.training.threads:
        torch.set_num_threads(recipe.training.threads)
    run = Run(recipe, run_dir, progress or Progress())
    with naming_lost_processes(run_dir):
        PartialState().wait_for_everyone()  # else one that starts later finds the folder taken, by its own run
        # Only now, after everything has been found: a recipe to be fixed must not block its folder.
        with _claimed(recipe, run_dir, resume) if run.main else _unclaimed():
            return run.train()


def _check_free(recipe: Recipe, run_dir: Path, resume: bool) -> None:
    """Refuse a folder that is taken, or, with ``resume``, one without a run or of another recipe."""
    path = run_dir / RECIPE
    if not path.is_file():
        if resume:
            raise RecipeError(
                f"{run_dir} holds no run to go on with; leave --resume out, or name its folder with --run"
            )
        return
    if not resume:
        raise RecipeError(f"{run_dir} holds a run already; go on with --resume, or name another folder with --run")
    if not is_recipe_of(path, recipe):
        raise CheckpointError(f"{path} differs from the recipe given; resume with the same recipe and overrides")


@contextmanager
def _claimed(recipe: Recipe, run_dir: Path, resume: bool) -> Iterator[None]:
    """Mark the folder as this recipe's, and give it back where the run fails before it has a checkpoint."""
    there = run_dir.exists()
    run_dir.mkdir(parents=True, exist_ok=True)
    with replacing(run_dir / RECIPE) as part:
        part.write_text(recipe.to_yaml())  # of a run that goes on, too: its experts may have been given more time
    try:
        yield
    except BaseException:
        if not resume and not any((run_dir / FOLDER).glob("step-*")):
            for name in (RECIPE, NAME, QUARANTINE, LOCK):
                (run_dir / name).unlink(missing_ok=True)
            shutil.rmtree(run_dir / FOLDER, ignore_errors=True)
            if not there and not any(run_dir.iterdir()):
                run_dir.rmdir()
        raise
    (run_dir / LOCK).unlink(missing_ok=True)


@contextmanager
def _unclaimed() -> Iterator[None]:
    """Leave the folder to the first process."""
    yield
