"""A training step of the recipe easy-vqa in this tree against an older revision: whole runs of a few steps, in turns.

Knows: git, and the log of a run, which each step of either revision has a line in. Run as a file it takes the steps of
one tree, whose packages PYTHONPATH names.
"""

from __future__ import annotations

import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

TARGET, HERE = 1.05, Path(__file__).resolve().parents[1]
RECIPES = ("recipes/easy-vqa.yaml", "recipes/quickstart.yaml")  # its name, and that of older revisions
WARM = 3  # steps at the beginning of each turn that do not count
NEVER = 1_000_000  # steps: so that neither validation nor a checkpoint falls into a step
COMMON = (f"training.monitor_every={NEVER}", f"training.checkpoint_every={NEVER}")
Turn = Callable[[Path, int], list[float]]  # a tree and a number of steps -> seconds of each that counts


def compare(revision: str, steps: int, repeats: int, threads: int, turn: Turn | None = None) -> dict:
    """Take steps of both trees in turns, and return the ratios of their medians, turn by turn.

    Args:
        revision: anything that git understands.
        steps: of each turn, which count.
        repeats: turns of each tree.
        threads: of a turn's process.
        turn: takes the steps of a tree; a process of its own where left out.

    Raises:
        SystemExit: git knows no such revision, or a turn fails; says why.
    """
    take = turn or (lambda tree, count: _in_a_process(tree, count, threads))
    with worktree(revision) as other:
        seconds: dict[Path, list[list[float]]] = {HERE: [], other: []}
        for number in range(repeats):
            for tree in (HERE, other) if number % 2 == 0 else (other, HERE):
                seconds[tree].append(take(tree, steps))
        ours, theirs = ([statistics.median(one) for one in seconds[tree]] for tree in (HERE, other))
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    return {
        "revision": revision, "steps": steps, "ours": ours, "theirs": theirs, "ratios": ratios,
        "ratio": statistics.mean(ratios), "interval": interval(ratios),
    }  # fmt: skip


def interval(ratios: list[float], draws: int = 5000) -> tuple[float, float]:
    """Return the middle 95 % of the mean over turns that are drawn again, with replacement; always the same draws."""
    rng = random.Random(0)
    means = sorted(statistics.mean(rng.choices(ratios, k=len(ratios))) for _ in range(draws))
    return means[int(0.025 * draws)], means[int(0.975 * draws) - 1]


@contextmanager
def worktree(revision: str) -> Iterator[Path]:
    """Check a revision out into a temporary folder, and remove it afterwards."""
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        _git("worktree", "add", "--detach", str(tree), revision)
        try:
            yield tree
        finally:
            _git("worktree", "remove", "--force", str(tree))


def _git(*words: str) -> None:
    done = subprocess.run(["git", "-C", str(HERE), *words], capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"git {' '.join(words[:2])}: {done.stderr.strip()}; name a revision of this repository")


def overrides(recipe: str, steps: int) -> list[str]:
    """Return what makes a recipe of either form take so many steps: the last of them, which ends a run, aside.

    Args:
        recipe: the YAML.
        steps: of the first stage that teaches to answer.
    """
    if "\nstages:" in recipe:
        return [*COMMON, "stages.align.steps=1", f"stages.modules.steps={steps}", "stages.gates.steps=1"]
    return [*COMMON, "training.align.steps=1", f"training.step1.steps={steps}", "training.step2.steps=1"]


def recipe_of(tree: Path) -> Path:
    """Return the recipe in a tree of this or an older revision.

    Raises:
        SystemExit: it has none.
    """
    found = next((tree / name for name in RECIPES if (tree / name).is_file()), None)
    return found or sys.exit(f"{tree} has neither {' nor '.join(RECIPES)}; name another revision")


def seconds_of(log: Path) -> list[float]:
    """Read the seconds of the steps that teach to answer, without the first ones and the last, which ends the run."""
    rows = [json.loads(line) for line in log.read_text().splitlines()]
    return [row["seconds"] for row in rows if "loss" in row][WARM:-1]


def _in_a_process(tree: Path, steps: int, threads: int) -> list[float]:
    paths = [str(tree), *(str(path) for path in sorted((tree / "plugins").iterdir()) if path.is_dir())]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": str(threads)}
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(Path(__file__)), str(tree), str(steps + WARM), f"{folder}/run"]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
        if done.returncode:
            said = done.stderr.strip().splitlines() or ["it said nothing"]
            sys.exit(f"a turn of {tree} failed: {said[-1]}")
        return seconds_of(Path(folder) / "run" / "training.jsonl")


def _take(tree: Path, steps: int, run: str) -> None:
    """Train in this process, by the packages of the tree."""
    import moai
    from moai.recipe.loading import load_recipe
    from moai.training.trainer import train

    if not Path(moai.__file__).resolve().is_relative_to(tree.resolve()):
        sys.exit(f"moai was imported from {moai.__file__}, which is not in {tree}; install moai as editable")
    recipe = recipe_of(tree)
    train(load_recipe(str(recipe), overrides(recipe.read_text(), steps)), run)


if __name__ == "__main__":
    _take(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3])
