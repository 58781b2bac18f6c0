"""Name the classes of a detector: COCO's 80 things, the same by the numbers of COCO's 91-class list, or one's own.

Knows: lists of names. COCO's first list numbered 91 classes, 11 of which were never annotated; TensorFlow's detectors
count by it, and most others count the 80 that are left.
Source: the category lists of COCO 2017 (annotations under CC BY 4.0).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from moai.errors import ExpertError, nearest
from moai.types import MAX_TEXT

COCO = tuple(
    "person,bicycle,car,motorcycle,airplane,bus,train,truck,boat,traffic light,fire hydrant,stop sign,parking meter,"
    "bench,bird,cat,dog,horse,sheep,cow,elephant,bear,zebra,giraffe,backpack,umbrella,handbag,tie,suitcase,frisbee,"
    "skis,snowboard,sports ball,kite,baseball bat,baseball glove,skateboard,surfboard,tennis racket,bottle,wine glass,"
    "cup,fork,knife,spoon,bowl,banana,apple,sandwich,orange,broccoli,carrot,hot dog,pizza,donut,cake,chair,couch,"
    "potted plant,bed,dining table,toilet,tv,laptop,mouse,remote,keyboard,cell phone,microwave,oven,toaster,sink,"
    "refrigerator,book,clock,vase,scissors,teddy bear,hair drier,toothbrush".split(",")
)
NEVER_ANNOTATED = (0, 12, 26, 29, 30, 45, 66, 68, 69, 71, 83)  # 0 is the background of a detector that has one
COCO_NUMBERS = tuple(number for number in range(91) if number not in NEVER_ANNOTATED)
LISTS = {"coco": dict(enumerate(COCO)), "coco-91": dict(zip(COCO_NUMBERS, COCO, strict=True))}
UNUSED = {"coco": (), "coco-91": NEVER_ANNOTATED}  # numbers that a network may give and that name nothing


class ClassNames:
    """Look the number of a class up: its name, or nothing for the numbers that never were a class."""

    def __init__(self, names: dict[int, str], unused: Sequence[int] = ()) -> None:
        self.names, self.unused = names, frozenset(unused)

    @property
    def count(self) -> int:
        """How many classes there are from the first number to the last, unused ones included."""
        numbers = self.names.keys() | self.unused
        return max(numbers) - min(numbers) + 1

    def __getitem__(self, number: int) -> str | None:
        """Return the name, or ``None`` for an unused number. Raises ExpertError for a number that nothing names."""
        if number in self.unused:
            return None
        if number not in self.names:
            raise ExpertError(
                f"the network found class {number}, but its labels name {len(self.names)} classes from "
                f"{min(self.names)} to {max(self.names)}; give the labels that it was trained with, or first_class"
            )
        return self.names[number]


def class_names(labels: str | Sequence[str], first: int = 0) -> ClassNames:
    """Number the names of classes.

    Args:
        labels: names in the order of their numbers; ``"coco"`` for the 80 names; ``"coco-91"`` for the same by the
            numbers of the 91-class list, whatever ``first`` is; or a UTF-8 text file with one name per line.
        first: the number of the first name; 1 where 0 is the background.

    Raises:
        ExpertError: no such list or file, or a name that is empty or too long.
    """
    if labels == "coco-91":
        return ClassNames(LISTS["coco-91"], UNUSED["coco-91"])
    names = [" ".join(name.split()) for name in (_read(labels) if isinstance(labels, str) else labels)]
    for line, name in enumerate(names, 1):
        if not 0 < len(name) <= MAX_TEXT:
            raise ExpertError(f"label {line} has {len(name)} characters; each class needs a name of 1 to {MAX_TEXT}")
    if not names:
        raise ExpertError("there are no labels; name the classes, for instance [cat, dog], or 'coco'")
    return ClassNames(dict(enumerate(names, first)), range(first))


def _read(labels: str) -> Sequence[str]:
    if labels == "coco":
        return COCO
    path = Path(labels).expanduser()
    if not path.is_file():
        raise ExpertError(
            f"the labels '{labels}' are neither a built-in list nor a file{nearest(labels, LISTS)}; write a list of "
            "names, or the path of a text file with one name per line"
        )
    try:
        return path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ExpertError(f"the labels {path} cannot be read as UTF-8 text: {error}") from error
