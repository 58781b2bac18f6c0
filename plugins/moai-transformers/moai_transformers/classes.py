"""Name the classes of a panoptic model, and find those that can be counted.

Knows: that transformers' configurations name classes but do not say which are stuff. For COCO's 133 that is known;
for any other set the user says it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from moai.errors import ExpertError, nearest
from moai_transformers.coco import PANOPTIC, THINGS


@dataclass(frozen=True)
class Classes:
    """Hold names by class id, and the ids that are stuff (sky, road), of which a picture has one region each."""

    names: dict[int, str]
    stuff: frozenset[int]


def classes_of(id2label: Mapping[int, str], things: tuple[str, ...] | None, expert: str) -> Classes:
    """Combine a configuration's names with the option ``things``.

    Raises:
        ExpertError: the classes are not COCO's and ``things`` is not given, or it names no class of the model.
    """
    names = {int(number): str(name) for number, name in id2label.items()}
    if len(names) == len(PANOPTIC) and all(name == f"LABEL_{number}" for number, name in names.items()):
        names = dict(enumerate(PANOPTIC))  # a checkpoint saved without names
    if things is None:
        things = _coco_things(names, expert)
    known = set(names.values())
    for name in things:
        if name not in known:
            raise ExpertError(
                f"expert '{expert}', option 'things': the model has no class '{name}'{_near(name, known)}"
            )
    return Classes(names, frozenset(number for number, name in names.items() if name not in set(things)))


def _coco_things(names: dict[int, str], expert: str) -> tuple[str, ...]:
    # First and last thing, not all names: published label files spell a few of them in their own way.
    last = len(THINGS) - 1
    if len(names) == len(PANOPTIC) and (names.get(0), names.get(last)) == (THINGS[0], THINGS[last]):
        return tuple(names[number] for number in range(len(THINGS)))
    raise ExpertError(
        f"expert '{expert}': the model's {len(names)} classes are not COCO's 133, so it is not known which can be "
        "counted; name these in the option things"
    )


def _near(name: str, known: set[str]) -> str:
    return nearest(name, known) if len(known) <= 20 else nearest(name, known).partition("; known")[0]
