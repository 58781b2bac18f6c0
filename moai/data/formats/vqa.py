"""The format ``vqa``: the layouts of VQAv2, GQA and TextVQA.

Knows: the three layouts. Their files are one JSON document each, which is read whole.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, validate_call

from moai.data.formats.jsonl import text_of
from moai.data.records import ListedRecords
from moai.data.row_index import Place
from moai.data.samples import LazySamples
from moai.data.source import Source
from moai.errors import DataError, RecipeError
from moai.types import IMAGE, Sample

NAME = re.compile(r"\{image_id(?::0(\d{1,2})d)?\}")


@validate_call(config=ConfigDict(arbitrary_types_allowed=True))
def vqa(source: Source, annotations: str | None = None, image_name: str = "{image_id}.jpg") -> LazySamples:
    """Read questions with all their answers; the answer that is learnt is the most frequent one.

    Args:
        source: VQAv2's ``{"questions"}``, GQA's mapping of questions, or TextVQA's ``{"data"}``.
        annotations: VQAv2's file of answers.
        image_name: the images' names; ``{image_id:012d}`` fills the id with zeros.

    Raises:
        RecipeError: the name has no id, or VQAv2's annotations are not given.
        DataError: a file is no JSON, or of another layout.
    """
    if not NAME.search(image_name):
        raise RecipeError("image_name needs {image_id}, or {image_id:012d} with leading zeros")
    if len(source.paths) > 1:
        raise RecipeError(f"{source.path} names several files, and format vqa reads one; list a source for each")
    path = source.paths[0]
    rows = _read(path, annotations)
    places = [Place(str(path), number) for number in range(1, len(rows) + 1)]

    def to_sample(row: Mapping[str, Any], place: Place) -> Sample:
        return _from_row(source, row, place, image_name)

    return LazySamples(ListedRecords(rows, places), to_sample, group=lambda row: str(row["image_id"]))


def _read(path: Path, annotations: str | None) -> Sequence[dict[str, Any]]:
    whole = _json(path)
    if isinstance(whole, dict) and isinstance(whole.get("questions"), list):
        if annotations is None:
            raise RecipeError("VQAv2's answers are in a file of their own; set annotations in options")
        given = _json(Path(annotations).expanduser())
        if not isinstance(given, dict) or not isinstance(given.get("annotations"), list):
            raise DataError(f"{annotations} has no list 'annotations'; name VQAv2's file of answers")
        answers = {one.get("question_id"): one for one in given["annotations"] if isinstance(one, dict)}
        return [_row(one, answers.get(one.get("question_id"), {})) for one in map(_object, whole["questions"])]
    if isinstance(whole, dict) and isinstance(whole.get("data"), list):
        return [_row(one, one) for one in map(_object, whole["data"])]
    if isinstance(whole, dict) and whole and all(isinstance(one, dict) for one in whole.values()):
        return [_row({**one, "question_id": id, "image_id": one.get("imageId")}, one) for id, one in whole.items()]
    raise DataError(f"{path} is of none of the layouts of VQAv2, GQA and TextVQA; choose another format")


def _json(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise DataError(f"{path} cannot be read: {error.strerror or error}; check the path") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path} is no JSON ({error}); copy it again") from error


def _object(one: Any) -> dict[str, Any]:
    return one if isinstance(one, dict) else {}


def _row(asked: Mapping[str, Any], answered: Mapping[str, Any]) -> dict[str, Any]:
    """Return one layout for all three: id, image, question, answer, answers, kind."""
    listed = answered.get("answers")
    answers = [one.get("answer") if isinstance(one, dict) else one for one in listed if one] if listed else []
    answers = [one for one in answers if isinstance(one, str)]
    frequent = Counter(answers).most_common(1)
    answer = answered.get("multiple_choice_answer") or answered.get("answer") or (frequent[0][0] if frequent else None)
    return {
        "id": asked.get("question_id"), "image_id": asked.get("image_id"), "question": asked.get("question"),
        "answer": answer, "answers": answers, "kind": answered.get("answer_type") or "",
    }  # fmt: skip


def _from_row(source: Source, row: Mapping[str, Any], place: Place, image_name: str) -> Sample:
    if row["answer"] is None:
        raise DataError("no answer; check that the annotations are those of these questions", "empty answer")
    image = text_of(row, "image_id")
    name = NAME.sub(lambda found: image.zfill(int(found[1] or 0)), image_name)
    turns = [("user", (IMAGE, text_of(row, "question"))), ("assistant", text_of(row, "answer"))]
    answers = tuple(dict.fromkeys(row["answers"]))
    return source.sample(place, row["id"], turns, [name], kind=str(row["kind"]), answers=answers)
