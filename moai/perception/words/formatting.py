"""Format the parts of a fact: cleaned labels and text, boxes, scores and numbered instances.

Knows: perceptions, but no language. Labels and recognised text are untrusted: control characters become spaces, so that
no text can start a new line, and every other character stays as it was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from moai.types import Box, Detection, Perception, Relation, Segment, describe

# Control characters (Unicode category Cc), line and paragraph separators, and any run of white space.
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # cannot be encoded, so no tokenizer takes it
_SUFFIX = re.compile(r"(?:-(?:merged|other|stuff))+$")  # of the COCO panoptic class names


def clean(text: str) -> str:
    """Collapse control characters and white space to single spaces; keep every other character."""
    return _BLANK.sub(" ", _SURROGATE.sub("\ufffd", text)).strip()


def clean_label(text: str) -> str:
    """Clean a label and remove the suffixes of the COCO panoptic names: ``-merged``, ``-other``, ``-stuff``."""
    cleaned = clean(text)
    return _SUFFIX.sub("", cleaned) or cleaned


def box_facts(items: Iterable[Segment | Detection], scores: bool = False) -> list[str]:
    """Format segments or detections as ``[x0, y0, x1, y1] name``, with two decimals."""
    named = [(item, clean_label(describe(item))) for item in items]
    return [with_score(f"{format_box(item.box)} {name}", item.score, scores) for item, name in named if name]


def text_facts(perception: Perception, scores: bool = False) -> list[str]:
    """Format the lines of text that hold more than white space."""
    return [with_score(text, line.score, scores) for line in perception.texts if (text := clean(line.text))]


def format_box(box: Box) -> str:
    """Format a box as ``[0.31, 0.22, 0.71, 0.66]``, in every language."""
    return f"[{', '.join(f'{value:.2f}' for value in box)}]"


def with_score(fact: str, score: float, scores: bool = True) -> str:
    """Append a score with two decimals to a fact when ``scores`` is set."""
    return f"{fact} ({score:.2f})" if scores else fact


def instance_names(relations: Iterable[Relation], number: str = " (#{})") -> dict[tuple[str, Box | None], str]:
    """Name the objects of relations by ``(label, box)``.

    Args:
        relations: their subjects and objects are named.
        number: the pattern of an instance's number. Instances of one label that have different boxes are numbered
            in the order of their first mention.
    """
    boxes: dict[str, list[Box | None]] = {}
    ends = [end for r in relations for end in ((r.subject, r.subject_box), (r.object, r.object_box))]
    for label, box in ends:
        known = boxes.setdefault(clean_label(label), [])
        if box not in known:
            known.append(box)
    names = {}
    for label, box in ends:
        known = boxes[clean_label(label)]
        names[label, box] = clean_label(label) + (number.format(known.index(box) + 1) if len(known) > 1 else "")
    return names
