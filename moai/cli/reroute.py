"""Re-routing for ``moai eval``: the record of solved samples, made once per run, and the plain answers beside it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show

if TYPE_CHECKING:
    from moai.answering import Augmented
    from moai.model.analysis.rerouting import Record, Rerouting
    from moai.recipe.schema import Recipe
    from moai.types import Sample

SAMPLES = 512  # asked for a record; those that were answered right are kept


def unrecorded(whole: Sequence[Sample], recipe: Recipe, split: str, data: str | None) -> Sequence[Sample]:
    """The samples that may be evaluated with re-routing: not those that may have been recorded."""
    from moai.evaluation.rerouting import other_half

    same = split == recipe.data.validation_split and data in (None, recipe.data.name)
    return other_half(whole) if same else whole


def rerouting_of(
    augmented: Augmented, recipe: Recipe, run: Path, batch_size: int, neighbours: int, strength: float
) -> Rerouting:
    """Re-routing by the run's record of solved validation samples, which is made where it is missing or outdated."""
    from moai.evaluation.evaluate import dataset_of, draw, fingerprint, perceive_views
    from moai.evaluation.rerouting import recorded_half
    from moai.model.analysis.rerouting import Rerouting, save_record
    from moai.training.progress import Progress

    Rerouting.check(neighbours, strength)
    split = recipe.data.validation_split
    samples = draw(recorded_half(dataset_of(recipe, split)), SAMPLES, seed=0)
    perceptions, _ = perceive_views(augmented, samples, ["on"], Progress())
    key = fingerprint(run, samples, perceptions)
    record = _kept(run, key)
    if record is None:
        record = _made(augmented, recipe, samples, perceptions, batch_size, {"key": key, "split": split})
        save_record(record, run)
    about = record.about
    click.echo(
        f"re-routing by the {neighbours} nearest of {len(about['solved']):,} solved samples of the {split} split "
        f"({about['asked']:,} asked), strength {strength:g}",
        err=True,
    )
    return Rerouting(record, neighbours, strength).to(augmented.model.device)


def describe(rerouting: Rerouting) -> dict[str, Any]:
    """What the report keeps of it."""
    solved = len(rerouting.record.states)
    return {"neighbours": rerouting.neighbours, "strength": rerouting.strength, "solved": solved}


def _kept(run: Path, key: str) -> Record | None:
    from moai.model.analysis.rerouting import FILES, FOLDER, load_record

    if not all((run / FOLDER / name).is_file() for name in FILES):
        return None
    record = load_record(run)
    return record if record.about.get("key") == key else None


def _made(augmented: Augmented, recipe: Recipe, samples, perceptions, batch_size: int, about: dict[str, Any]) -> Record:
    from moai.evaluation.rerouting import build_record

    with show.progress("recording solved samples", len(samples)) as advance:
        return build_record(
            augmented,
            samples,
            perceptions,
            batch_size=batch_size,
            max_new_tokens=recipe.evaluation.max_new_tokens,
            about=about,
            progress=advance,
        )
