"""Load `photographs`: questions about real photographs with the answers, and what perfect experts would return.

Knows: the two data files of this package. It is a test: there is nothing to train on, and a third of the photographs
is set aside for choosing thresholds and phrasing.
"""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from moai.errors import RecipeError, nearest
from moai.types import Conversation, Perception, Sample
from moai_photographs.answers import accepted
from moai_photographs.pictures import pictures, read_yaml
from moai_photographs.truth import derive, truth_of

SPLITS = ("test", "tuning")
KINDS = ("existence", "count", "position", "relation", "text", "attribute", "identity", "absent")


def photographs(
    split: str = "test",
    limit: int | None = None,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    experts: Mapping[str, Mapping[str, Any]] | None = None,
) -> list[Sample]:
    """Return the questions of one split, photograph by photograph.

    Args:
        split: ``"test"``, or ``"tuning"``, the photographs on which thresholds and phrasing may be chosen.
        limit: draw at most this many questions at random without replacement; a larger limit contains a smaller one.
        seed: of that draw.
        kinds: of questions.
        experts: names and options of experts that build on others (``{"geometry": {}, "tally": {}}``): what they make
            of the truth joins it, so that its words are those of a recipe with these experts.

    Raises:
        RecipeError: another split, an unknown kind or a limit below 1.
        AssetError: a picture that cannot be downloaded, or another one under its name.
    """
    if split not in SPLITS:
        raise RecipeError(
            f"the data set photographs has no split '{split}'{nearest(split, SPLITS)}; it is for tests only: "
            "name 'test', or 'tuning' to choose thresholds, and train on another data set"
        )
    if unknown := sorted(set(kinds) - set(KINDS)):
        raise RecipeError(f"photographs has no questions of the kind '{unknown[0]}'{nearest(unknown[0], KINDS)}")
    if limit is not None and limit < 1:
        raise RecipeError(f"photographs: the limit is {limit}; give at least 1, or none for the whole split")
    wanted = [question for question in questions() if question["split"] == split and question["kind"] in kinds]
    if limit is not None:
        drawn = set(_ranked((question["id"] for question in wanted), f"draw {seed}")[:limit])
        wanted = [question for question in wanted if question["id"] in drawn]
    names = dict.fromkeys(question["name"] for question in wanted)
    paths = {name: pictures()[name].find() for name in names}
    found = {name: derive(truths()[name], paths[name], experts or {}) for name in names}
    return [_sample(question, paths[question["name"]], found[question["name"]]) for question in wanted]


@functools.cache
def questions() -> tuple[dict[str, Any], ...]:
    """Return every question as plain data: id, name of the photograph, split, kind, question, accepted answers."""
    return tuple(
        {
            "id": f"photographs/{entry['name']}/{number}",
            "name": entry["name"],
            "split": entry["split"],
            "kind": kind,
            "question": question,
            "answers": accepted(kind, answers),
        }
        for entry in _entries()
        for number, (kind, question, *answers) in enumerate(entry["questions"], 1)
    )


@functools.cache
def truths() -> dict[str, Perception]:
    """Return what perfect experts would return of each photograph, by its name."""
    return {entry["name"]: truth_of(entry) for entry in _entries()}


def list_hash() -> str:
    """Hash the list as it is written: every question, its answers, the truth, and the SHA-256 of each picture."""
    listed = [[entry, pictures()[entry["name"]].sha256] for entry in _entries()]
    return hashlib.sha256(json.dumps(listed, ensure_ascii=False, sort_keys=True).encode()).hexdigest()


@functools.cache
def _entries() -> list[dict[str, Any]]:
    return read_yaml("questions.yaml")


def _sample(question: Mapping[str, Any], path: Any, truth: Perception) -> Sample:
    answers = question["answers"]
    return Sample(
        id=question["id"],
        conversation=Conversation.ask(question["question"], (path,), answers[0]),
        image_ids=(f"photographs/{question['name']}",),
        kind=question["kind"],
        answers=answers,
        truths=(truth,),
    )


def _ranked(names: Iterable[str], salt: str) -> list[str]:
    """Order names by a salted hash: a draw that is the same in every Python version and nests by length."""
    return sorted(names, key=lambda name: hashlib.sha256(f"{salt}:{name}".encode()).digest())
