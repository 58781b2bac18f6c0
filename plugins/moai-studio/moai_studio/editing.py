"""Edit the findings of a picture, to ask what the answer would be if the experts had found something else.

Knows: perceptions and experts. What was not edited stays as it was found, but for what other experts derived of it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL.Image import Image

import moai
from moai import Perceiver
from moai.errors import ExpertError, PromptError
from moai.plugin_api import facts_of
from moai.types import Box, Detection, Mask, Perception, Relation, Segment, Source, TextLine, check_perception
from moai_studio.findings import FIELDS, Fact, fact_id
from moai_studio.messages import Edit

YOU = "you"  # the source of findings that were added
_LISTS = tuple(FIELDS.values())
_BY_ROLE = {"panoptic": "segments", "open_world": "detections", "scene_graph": "relations", "ocr": "texts"}


@dataclass(frozen=True)
class Edited:
    """Hold an edited perception, and where each of its findings comes from.

    Attributes:
        perception: after the edits.
        lists: per list of findings, ``"detections"`` or ``"notes.count"``, the name of each: its id before the edits,
            or ``"added.0"`` for the first that was added; None for one that was derived of edited ones.
    """

    perception: Perception
    lists: dict[str, list[str | None]]

    def origins(self) -> dict[str, str | None]:
        """Return the names by the ids that the findings have now."""
        return {f"{key}.{number}": name for key, names in self.lists.items() for number, name in enumerate(names)}


def edit(perception: Perception, edits: Sequence[Edit]) -> Edited:
    """Apply edits to a perception, in order.

    Raises:
        PromptError: a finding that is not there, or an edit that does not fit its kind.
        ExpertError: a finding that no expert might return, such as one without a name.
    """
    found: dict[str, Fact | None] = {fact_id(*one): one.fact for one in facts_of(perception)}
    additions = 0
    for one in edits:
        if one.do == "add":
            found[f"added.{additions}"] = _added(one, perception)
            additions += 1
        elif found.get(one.finding) is None:
            raise PromptError("an edited finding is not there any more; take the edits back and begin anew")
        else:
            found[one.finding] = _changed(one, found[one.finding])
    items: dict[str, list[Any]] = {}
    lists: dict[str, list[str | None]] = {}
    for name, fact in found.items():
        if fact is not None:
            key = name.rpartition(".")[0] if isinstance(fact, str) else FIELDS[type(fact)]
            items.setdefault(key, []).append(fact)
            lists.setdefault(key, []).append(name)
    notes = {role: tuple(items[f"notes.{role}"]) for role in perception.notes if f"notes.{role}" in items}
    edited = replace(perception, notes=notes, **{name: tuple(items.get(name, ())) for name in _LISTS})
    check_perception(edited)
    return Edited(edited, lists)


def _added(one: Edit, perception: Perception) -> Fact:
    if one.box is None:
        raise PromptError("a finding that is added needs a place; draw its box")
    box = _box(one.box)
    if one.kind == "text":
        return TextLine(one.text, 1.0, _corners(box), source=YOU)
    objects = {source.role for source in perception.sources}
    if "panoptic" in objects and "open_world" not in objects:  # as the run's words know things
        return Segment(one.text, 1.0, box, source=YOU)
    return Detection(one.text, 1.0, box, source=YOU)


def _changed(one: Edit, fact: Any) -> Fact | None:
    if one.do == "delete":
        return None
    if one.do == "write":
        return _written(fact, one.text)
    if isinstance(fact, (str, Relation)) or one.box is None:
        raise PromptError("only things and print have a place; move those")
    box = _box(one.box)
    if isinstance(fact, TextLine):
        return replace(fact, polygon=_corners(box))
    if isinstance(fact, Segment):
        return replace(fact, box=box, mask=_moved(fact.mask, fact.box, box))
    return replace(fact, box=box)


def _written(fact: Any, text: str) -> Fact:
    if isinstance(fact, str):
        return text
    if isinstance(fact, Relation):
        return replace(fact, predicate=text)
    if isinstance(fact, TextLine):
        return replace(fact, text=text)
    return replace(fact, label=text, attributes={}) if isinstance(fact, Segment) else replace(fact, label=text)


def _box(given: Sequence[float]) -> Box:
    x0, y0, x1, y1 = given
    return min(x0, x1), min(y0, y1), max(x0, x1), max(y0, y1)


def _corners(box: Box) -> tuple[tuple[float, float], ...]:
    x0, y0, x1, y1 = box
    return (x0, y0), (x1, y0), (x1, y1), (x0, y1)


def _moved(mask: Mask | None, old: Box, new: Box) -> Mask | None:
    """Move a mask with its box; one that is stretched too becomes its box."""
    stretched = any(abs((new[i + 2] - new[i]) - (old[i + 2] - old[i])) > 0.005 for i in (0, 1))
    if mask is None or stretched:
        return None
    across, down = round((new[0] - old[0]) * mask.width), round((new[1] - old[1]) * mask.height)
    rows, columns = np.nonzero(mask.decode())
    rows, columns = rows + down, columns + across
    inside = (rows >= 0) & (rows < mask.height) & (columns >= 0) & (columns < mask.width)
    pixels = np.zeros((mask.height, mask.width), dtype=bool)
    pixels[rows[inside], columns[inside]] = True
    return Mask.encode(pixels) if pixels.any() else None


def derived_experts(perceiver: Perceiver) -> list[moai.Expert]:
    """List the experts that make their findings of others' findings alone: they need those, and no weights."""
    return [expert for expert in perceiver.experts if expert.requires and expert.weights == "none"]


def derive(perceiver: Perceiver, image: Image, edited: Edited, before: Perception) -> Edited:
    """Let the experts that build on others' findings run again on edited ones.

    Their findings stay as they are where one of them was edited, or nothing else was.

    Args:
        perceiver: of the run.
        image: the picture.
        edited: its perception after edits.
        before: its perception before them.

    Raises:
        ExpertError: one of these experts fails on what was edited.
    """
    experts = derived_experts(perceiver)
    names = {expert.name for expert in experts} & {source.expert for source in before.sources}

    def theirs(fact: Fact, role: str) -> bool:
        return _is_of(fact, role, names, before.sources)

    def others(fact: Fact, role: str) -> bool:
        return not theirs(fact, role)

    base = _only(edited.perception, others)
    if not names or base == _only(before, others) or _only(edited.perception, theirs) != _only(before, theirs):
        return edited
    given = [_Given(role, base) for role in dict.fromkeys(s.role for s in before.sources if s.expert not in names)]
    [found] = Perceiver([*given, *(e for e in experts if e.name in names)]).perceive([image])
    if found.failures:
        raise ExpertError(
            f"expert '{found.failures[0].expert}' gave nothing of the edited findings ({found.failures[0].reason}); "
            "ask with its findings as they were"
        )
    return _joined(edited, base, _only(found, theirs), others)


def _joined(edited: Edited, base: Perception, new: Perception, others: Callable[[Any, str], bool]) -> Edited:
    """Join what was not derived, whose origins are known, and what was derived anew."""
    notes = {role: base.notes.get(role, ()) + new.notes.get(role, ()) for role in (*base.notes, *new.notes)}
    both = {name: getattr(base, name) + getattr(new, name) for name in _LISTS}
    origins = edited.origins()
    lists: dict[str, list[str | None]] = {}
    for one in facts_of(edited.perception):
        if others(one.fact, one.role):
            name = fact_id(*one)
            lists.setdefault(name.rpartition(".")[0], []).append(origins[name])
    for one in facts_of(new):
        lists.setdefault(fact_id(*one).rpartition(".")[0], []).append(None)
    return Edited(replace(edited.perception, notes=notes, **both), lists)


class _Given(moai.Expert):
    """Returns the findings of one role as they were given."""

    name = role = "given"
    version = "1"
    cacheable = False

    def __init__(self, role: str, perception: Perception) -> None:
        super().__init__()
        self.name, self.role = f"given-{role}", role
        field = _BY_ROLE.get(role)
        lists = {field: getattr(perception, field)} if field else {}
        notes = {role: perception.notes[role]} if role in perception.notes else {}
        self.perception = Perception(notes=notes, **lists)

    def perceive(self, images, context):
        """Return the findings for each image."""
        return [self.perception for _ in images]


def _is_of(fact: Fact, role: str, experts: set[str], sources: Sequence[Source]) -> bool:
    """Tell whether one of these experts found a fact; a sentence says no more than its role."""
    if isinstance(fact, str):
        return any(source.role == role and source.expert in experts for source in sources)
    return fact.source in experts


def _only(perception: Perception, wanted: Callable[[Any, str], bool]) -> Perception:
    """Leave out the facts that are not wanted; ``wanted(fact, role)`` decides, with the role of a sentence."""
    lists = {name: tuple(fact for fact in getattr(perception, name) if wanted(fact, "")) for name in _LISTS}
    notes = {role: tuple(text for text in lines if wanted(text, role)) for role, lines in perception.notes.items()}
    return replace(perception, notes={role: lines for role, lines in notes.items() if lines}, **lists)
