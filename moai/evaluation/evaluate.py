"""Evaluate a run folder: perceive the images, answer under each condition, summarize, and write the report.

Knows: run folders, recipes and everything else in ``moai.evaluation``. It prints nothing but progress on stderr.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from moai.data.perceive import images_of, perceive_samples, perceive_without, read_perceptions
from moai.data.samples import Samples, draw
from moai.data.sources import label_of, metric_of, open_sources
from moai.errors import CheckpointError, DataError, RecipeError
from moai.evaluation.conditions import expand_conditions, left_out
from moai.evaluation.gates import sample_gates
from moai.evaluation.journal import Journal, digest
from moai.evaluation.paired import Record, run_conditions
from moai.evaluation.prompting import Rationale
from moai.evaluation.report.save import save_report
from moai.evaluation.shots import check_fit, with_shots
from moai.evaluation.summary import summarize
from moai.model.run_format import check_format
from moai.perception.words.verbalize import verbalize
from moai.recipe import loading
from moai.recipe.sections import DataSource
from moai.training.card import write_card
from moai.training.progress import Progress
from moai.types import Perception, Sample

if TYPE_CHECKING:
    from moai.answering import Augmented
    from moai.perception.running.time_limit import TimeLimit
    from moai.recipe.schema import Recipe

FIX = (
    "give it longer with --time-limit, make it work (`moai doctor` says what is missing), or evaluate the run elsewhere"
)


@dataclass(frozen=True)
class Evaluation:
    """Hold a finished evaluation: its figures, its answers, and the files that were written."""

    summary: dict[str, Any]  # of ``summarize``, with ``gates``
    records: list[Record]  # one per question
    folder: Path
    files: list[Path]


def evaluate_run(
    run: str | Path,
    *,
    augmented: Augmented | None = None,
    data: str | None = None,
    split: str | None = None,
    limit: int | None = None,
    full: bool = False,
    conditions: Sequence[str] | None = None,
    batch_size: int | None = None,
    seed: int = 0,
    shots: int = 0,
    rationale: Rationale | None = None,
    time_limit: TimeLimit | Literal["run"] = "run",
    progress: Progress | None = None,
) -> Evaluation:
    """Evaluate a run folder as ``moai eval`` does, and write the report into it.

    Args:
        run: a folder made by ``moai train``. Its recipe decides each argument that is left out.
        augmented: the run, where it is loaded already.
        data, split: names of another data set than the recipe's, and of its split.
        limit, full: number of questions, drawn at random with ``seed``; or all questions of the split.
        conditions: see ``moai.evaluation.conditions``.
        batch_size, seed: questions per call of the model; of the draw, the shots, the shuffling and the intervals.
        shots: solved questions of the training split before each question.
        rationale: describe the images first, and answer with the description in the prompt.
        time_limit: of an expert for an image, as in ``Perceiver``; ``"run"``: the run's.
        progress: where progress is shown; a bar on a terminal by default.

    Returns:
        The evaluation. ``evaluation.summary["groups"]["overall"]["accuracy"]["on"]`` is the accuracy with perception.

    Raises:
        CheckpointError: the folder is no run folder, or it cannot be written.
        RecipeError, PromptError: arguments that do not fit each other, the run, or its context; says which.
    """
    if full and limit is not None:
        raise RecipeError("an evaluation takes a limit or the full split; leave out one of the two")
    run, recipe, progress = Path(run), recipe_of(run), progress or Progress()
    wanted, split = recipe.evaluation, split or recipe.evaluation.split
    whole, sources = dataset_of(recipe, split, data), sources_of(recipe, data, split)
    samples = check_ids(draw(whole, None if full else limit or wanted.limit, seed))
    augmented = _opened(run, augmented, time_limit)
    samples = _with_shots(samples, recipe, data, shots, seed, augmented)
    names = expand_conditions(conditions or wanted.conditions, [expert.name for expert in augmented.perceiver.experts])
    folder = run / folder_of(recipe, data, split, full=len(samples) == len(whole), shots=shots, rationale=rationale)
    shards = None if data else recipe.perception.shards
    perceptions, reduced = perceive_views(augmented, samples, names, progress, shards)
    answering = {"batch_size": batch_size or wanted.batch_size, "seed": seed, "max_new_tokens": wanted.max_new_tokens}
    given, metric = fingerprint(run, samples, perceptions, reduced, rationale), metric_of(sources)
    journal = Journal(folder, {"conditions": names, **answering, "given": given})
    settings = {"conditions": names, **answering, "reduced": reduced, "metric": metric, "rationale": rationale}
    records = _answer(augmented, samples, perceptions, {**settings, "journal": journal}, progress)
    gates = sample_gates(augmented, samples, perceptions, answering["batch_size"]) if "on" in names else None
    about = {"name": recipe.name, "data": label_of(sources), "metric": getattr(metric, "__name__", "")}
    summary = {**summarize(records, split=split, seed=seed, available=len(whole), **about), "gates": gates}
    shown = {"images": images_of(samples), "words": words_of(augmented, perceptions), "perceptions": perceptions}
    files = save_report(summary, records, folder, run=run, **shown)
    return _finish(Evaluation(summary, records, folder, files), run, journal)


def _finish(evaluation: Evaluation, run: Path, journal: Journal) -> Evaluation:
    """Add the figures to the run's card, where they are of the recipe's own data and split."""
    if evaluation.folder.name in ("eval", "eval-full"):
        write_card(run, evaluation.summary)
    journal.close()  # everything is written
    return evaluation


def _with_shots(samples: list[Sample], recipe: Recipe, data, count: int, seed: int, augmented) -> list[Sample]:
    """Put solved questions before each, and refuse those that do not fit before anything is perceived."""
    if not count:
        return samples
    made = with_shots(samples, training_of(recipe, data), count, seed)
    check_fit(made, count, augmented.processor.encode)
    return made


def _answer(augmented: Augmented, samples, perceptions, settings: dict[str, Any], progress: Progress) -> list[Record]:
    """Answer the samples under the conditions, and show the progress."""
    names, answered = settings["conditions"], len(settings["journal"].rows)
    if answered:
        progress.note(f"going on with an interrupted evaluation: {answered:,} questions are answered")
    with progress.bar(f"answering ({', '.join(names)})", len(samples) * len(names)) as advance:
        return run_conditions(augmented, samples, perceptions, **settings, progress=advance)


def recipe_of(run: str | Path) -> Recipe:
    """Read the resolved recipe that a run folder was trained with.

    Raises:
        CheckpointError: the folder has none, or is of another format.
    """
    check_format(Path(run))  # before the recipe, whose keys of an older format would be refused as unknown
    path = Path(run) / "recipe.yaml"
    if not path.is_file():
        raise CheckpointError(f"{run} is no run folder: it has no recipe.yaml; `moai train` makes one")
    return loading.load_recipe(path)


def folder_of(
    recipe: Recipe, data: str | None, split: str | None, *, full: bool, shots: int = 0, rationale: Any = None
) -> str:
    """Name an evaluation's folder.

    ``eval``, the data set and the split where they are not the recipe's, ``4-shot``, ``rationale``, and ``full``.
    """
    parts = ["eval"]
    parts += [data] if data and sources_of(recipe, data) != recipe.data.sources else []
    parts += [split] if split and split != recipe.evaluation.split else []
    parts += [f"{shots}-shot"] if shots else []
    parts += ["rationale"] if rationale else []
    return "-".join([*parts, *(["full"] if full else [])])


def sources_of(recipe: Recipe, data: str | None = None, split: str | None = None) -> tuple[DataSource, ...]:
    """Return the recipe's sources; of a data set's name, the recipe's of that name.

    Where none of these is a part of the split, or there is none, it is the data set with its own defaults.
    """
    if data is None:
        return recipe.data.sources
    named = (one for one in recipe.data.sources if one.format == "dataset" and one.name == data)
    same = tuple(one for one in named if split is None or one.splits is None or split in one.splits)
    return same or (DataSource(format="dataset", name=data),)


def dataset_of(recipe: Recipe, split: str, data: str | None = None) -> Samples:
    """Open all samples of a split of the recipe's data, or of another registered data set.

    Raises:
        RecipeError: the split is empty.
        DataError: a file cannot be read.
    """
    return open_sources(sources_of(recipe, data, split), split, recipe.data.train_split, seed=recipe.seed)


def training_of(recipe: Recipe, data: str | None = None) -> Samples:
    """Open all samples of the training split, each once, whatever its source's weight in the mixture.

    Raises:
        RecipeError: the split is empty.
    """
    sources = [
        source.model_copy(update={"weight": None}) for source in sources_of(recipe, data, recipe.data.train_split)
    ]
    return open_sources(sources, recipe.data.train_split, recipe.data.train_split, seed=recipe.seed)


def check_ids(samples: Samples) -> list[Sample]:
    """Read samples whose answers are told apart by their ids.

    Raises:
        DataError: two samples have one id; names both places.
    """
    found: dict[str, int] = {}
    read = list(samples)
    for index, sample in enumerate(read):
        other = found.setdefault(sample.id, index)
        if other != index:
            raise DataError(
                f"two samples have the id '{sample.id}': {samples.place(other)} and {samples.place(index)}; "
                "give each its own, or leave out the key id"
            )
    return read


def perceive_views(
    augmented: Augmented,
    samples: Sequence[Sample],
    conditions: Sequence[str],
    progress: Progress,
    shards: str | None = None,
) -> tuple[Mapping[str, Perception], dict[str, dict[str, Perception]]]:
    """Perceive the samples' images with all experts, and without each expert that a condition leaves out.

    Args:
        augmented: the run.
        samples: whose images are perceived.
        conditions: of the evaluation.
        progress: where it is shown.
        shards: the folder of a perceived corpus, read in place of running all experts; without one of them the others
            still run.

    Returns:
        image id -> perception; and expert -> image id -> perception without it. Both are empty where no condition
        needs them.
    """
    if set(conditions) <= {"off", "oracle"}:
        return {}, {}
    count, reduced = len(images_of(samples)), {}
    if shards is not None and count:
        perceptions = read_perceptions(shards, samples, augmented.perceiver.experts)
    else:
        with progress.bar("perceiving", count) as advance:
            perceptions = perceive_samples(augmented.perceiver, samples, advance, fix=FIX)
    for expert in left_out(conditions):
        with progress.bar(f"perceiving without {expert}", count) as advance:
            reduced[expert] = perceive_without(augmented.perceiver, expert, samples, advance, fix=FIX)
    return perceptions, reduced


def fingerprint(run: Path, samples: Sequence[Sample], *perceptions: Any) -> str:
    """Hash what decides the answers: the run's weights, the questions, and the perceptions."""
    manifest = run / "manifest.json"
    weights = manifest.read_bytes() if manifest.is_file() else b""
    asked = [
        (s.id, s.image_ids, s.conversation.turns, s.answers, s.kind, s.language, s.truths, s.choices) for s in samples
    ]
    return digest([weights, asked, *perceptions])


def words_of(augmented: Augmented, perceptions: Mapping[str, Perception]) -> dict[str, str]:
    """Return image id -> the perception in words, as the model is given it."""
    to_words = getattr(augmented, "words", verbalize)
    return {image: to_words(perception) for image, perception in perceptions.items()}


def _opened(run: Path, augmented: Augmented | None, time_limit: TimeLimit | Literal["run"]) -> Augmented:
    augmented = augmented or _load(run)
    if time_limit != "run":
        augmented.perceiver.limit_time(time_limit)
    return augmented


def _load(run: Path) -> Augmented:
    from moai.answering import load

    return load(run)
