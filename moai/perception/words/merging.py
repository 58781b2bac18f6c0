"""Make one thing of what several experts found of it: segments, detections, the text on it, a tag that repeats it.

Knows: which things bear text, in English, and how a language says it. The thresholds were measured by
``benchmarks/merging.py`` (docs/verbalization.md).
"""

from __future__ import annotations

from dataclasses import replace

from moai.perception.words.formatting import clean, clean_label
from moai.perception.words.reading_order import reading_order
from moai.types import Box, Detection, Perception, Segment, TextLine, describe, merge_duplicates
from moai.types.names import longer, same_thing, words_of

WITHIN = 0.8  # share of a line's area that lies in the box of what it is written on
TAGS = "tags"  # the role whose notes are names of what the picture shows
BEARERS = frozenset(
    "sign signboard billboard board blackboard whiteboard poster banner flag label tag sticker plaque plate notice note"
    " letter envelope paper page card ticket menu newspaper magazine book booklet brochure leaflet calendar map package"
    " packet box carton can jar bottle bag cup screen tv monitor laptop phone display scoreboard keypad storefront"
    " shopfront awning marquee placard nameplate jersey shirt cap".split()
)
_SAYS = {  # language -> a thing with the text on it
    "en": "{label} that says {text}",
    "ko": "“{text}” 글자가 있는 {label}",
    "zh": "写有“{text}”的{label}",
    "ja": "「{text}」と書かれた{label}",
    "ar": "{label} مكتوب عليه «{text}»",
    "pt": "{label} com o texto “{text}”",
    "ru": "{label} с надписью «{text}»",
    "tr": "üzerinde “{text}” yazan {label}",
}


def merge_findings(perception: Perception, language: str = "en", within: float = WITHIN) -> Perception:
    """Unite the findings of each thing in one image.

    Args:
        perception: of one image; findings of several images would be taken for those of one.
        language: in which a text is added to the name of what it is written on; in one without a phrase for it, lines
            of text stay by themselves.
        within: the least share of a line's area in the box of what it is written on.

    Returns:
        The perception with

        - each object once (:func:`~moai.types.merge_duplicates`),
        - the lines of text on a thing that bears text in its name, "sign that says NO PARKING", in reading order; of
          several such things the smallest has it,
        - no tag that names an object, or says less than its name.
    """
    merged = merge_duplicates(perception)
    if language in _SAYS:
        merged = _with_texts(merged, _SAYS[language], within)
    return _without_repeated_tags(merged)


def _with_texts(perception: Perception, says: str, within: float) -> Perception:
    items: list[Segment | Detection] = [*perception.segments, *perception.detections]
    bearers = [index for index, item in enumerate(items) if bears_text(item)]
    on: dict[int, list[TextLine]] = {}
    rest = []
    for line in perception.texts:
        box = _bounds(line)
        fits = [i for i in bearers if box is not None and _inside(box, items[i].box) >= within]
        if fits and clean(line.text):
            on.setdefault(min(fits, key=lambda i: _area(items[i].box)), []).append(line)
        else:
            rest.append(line)
    for index, lines in on.items():
        item = items[index]
        text = " ".join(clean(line.text) for line in reading_order(lines))
        label = says.format(label=clean_label(item.label), text=text)
        items[index] = replace(item, label=label, score=max(item.score, *(line.score for line in lines)))
    count = len(perception.segments)
    return replace(perception, segments=tuple(items[:count]), detections=tuple(items[count:]), texts=tuple(rest))


def bears_text(item: Segment | Detection) -> bool:
    """Return whether text on a thing is what the thing says: on a sign it is, on a person or a wall it is not."""
    return bool(words_of(clean_label(item.label)) & BEARERS)


def _without_repeated_tags(perception: Perception) -> Perception:
    names = [clean_label(describe(item)) for item in (*perception.segments, *perception.detections)]
    tags = perception.notes.get(TAGS, ())
    # "dog" of a puppy or a brown dog says nothing new; "golden retriever" of a dog does.
    kept = tuple(tag for tag in tags if not any(same_thing(tag, name) and not longer(name, tag) for name in names))
    if len(kept) == len(tags):
        return perception
    notes = {role: lines for role, lines in perception.notes.items() if role != TAGS}
    return replace(perception, notes={**notes, TAGS: kept} if kept else notes)


def _bounds(line: TextLine) -> Box | None:
    if not line.polygon:
        return None
    xs, ys = zip(*line.polygon, strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _inside(one: Box, other: Box) -> float:
    across = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    down = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    return across * down / _area(one) if _area(one) else 0.0


def _area(box: Box) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
