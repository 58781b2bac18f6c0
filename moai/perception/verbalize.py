"""Perception to text, by template: pure and deterministic.

Knows: the wording of the four roles in English (the paper's, as its published code prints it) and the order in which
roles speak. Other languages and other roles come from plugins. Labels and recognised text are untrusted: control
characters become spaces so that nobody can start a new line, and every other character stays as it was read.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from moai.errors import PluginError
from moai.perception.types import ROLES, Box, Perception, Relation, describe
from moai.plugins import Registry
from moai.plugins import registry as process_registry

# Control characters (Unicode category Cc), line and paragraph separators, and any run of white space.
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # cannot be encoded, so no tokenizer takes it
_SUFFIX = re.compile(r"(?:-(?:merged|other|stuff))+$")  # of the COCO panoptic class names


def verbalize(perception: Perception, language: str = "en", registry: Registry | None = None) -> str:
    """Put a perception into words.

    Args:
        perception: what the experts saw; failures and scores are not spoken.
        language: of the templates, e.g. ``"en"``.
        registry: where the templates are; the process-wide one when None.

    Returns:
        One line: panoptic, open_world, scene_graph, ocr, then the plugins' own roles in alphabetical order. Roles with
        nothing to say leave nothing behind; ``""`` when nothing was seen.

    Raises:
        RecipeError: a role has no template in ``language``.
        PluginError: a plugin's template failed.
    """
    table = process_registry() if registry is None else registry
    parts = [_render(table, role, language, perception) for role in ROLES]
    for role in sorted({*perception.notes, *(source.role for source in perception.sources)} - set(ROLES)):
        spoken = (role, language) in table.templates
        parts.append(_render(table, role, language, perception) if spoken else notes_template(role, perception))
    parts.extend(notes_template(role, perception) for role in ROLES)
    return " ".join(part for part in map(clean, parts) if part)


def clean(text: str) -> str:
    """Collapse control characters and white space to single spaces; keep every other character."""
    return _BLANK.sub(" ", _SURROGATE.sub("\ufffd", text)).strip()


def clean_label(text: str) -> str:
    """``clean``, without the suffixes ``-merged``, ``-other`` and ``-stuff`` of the COCO panoptic class names."""
    cleaned = clean(text)
    return _SUFFIX.sub("", cleaned) or cleaned


def panoptic_template(perception: Perception) -> str:
    """Boxes and names of the segments."""
    return _boxes((segment.box, describe(segment)) for segment in perception.segments)


def open_world_template(perception: Perception) -> str:
    """Boxes and names of the detections."""
    return _boxes((detection.box, detection.label) for detection in perception.detections)


def scene_graph_template(perception: Perception) -> str:
    """Relations; instances that share a name are numbered, ``person (#1)``, in the order of their first mention."""
    names = _instance_names(perception.relations)
    facts = [
        f"{names[relation.subject, relation.subject_box]} is {clean(relation.predicate)} "
        f"{names[relation.object, relation.object_box]}"
        for relation in perception.relations
    ]
    return _sentence("The image includes relationships between objects: ", facts)


def ocr_template(perception: Perception) -> str:
    """The lines of text, as read."""
    return _sentence("The image includes text descriptions: ", [clean(line.text) for line in perception.texts])


def notes_template(role: str, perception: Perception) -> str:
    """The plain sentences of a role that has no template: they are spoken as they are."""
    return " ".join(text for text in map(clean, perception.notes.get(role, ())) if text)


TEMPLATES = {
    ("panoptic", "en"): panoptic_template,
    ("open_world", "en"): open_world_template,
    ("scene_graph", "en"): scene_graph_template,
    ("ocr", "en"): ocr_template,
}


def _render(table: Registry, role: str, language: str, perception: Perception) -> str:
    template = table.get_template(role, language)
    try:
        text = template(perception)
    except Exception as error:
        raise PluginError(
            f"the template for role '{role}' in '{language}' raised {type(error).__name__}: {error}; "
            "mend or uninstall the plugin that registers it"
        ) from error
    if not isinstance(text, str):
        raise PluginError(f"the template for role '{role}' in '{language}' returned {type(text).__name__}, not a str")
    return text


def _boxes(items: Iterable[tuple[Box, str]]) -> str:
    named = [(box, clean_label(name)) for box, name in items]
    listed = [f"[{', '.join(f'{value:.2f}' for value in box)}] {name}" for box, name in named if name]
    return _sentence("The image includes bounding box coordinates and their objects: ", listed)


def _sentence(start: str, items: list[str]) -> str:
    items = [item for item in items if item]
    if not items:
        return ""
    listed = items[0] if len(items) == 1 else f"{', '.join(items[:-1])}, and {items[-1]}"
    return f"{start}{listed}."


def _instance_names(relations: Iterable[Relation]) -> dict[tuple[str, Box | None], str]:
    """``(label, box)`` -> the name to say; the box tells two instances of one label apart."""
    boxes: dict[str, list[Box | None]] = {}
    ends = [end for r in relations for end in ((r.subject, r.subject_box), (r.object, r.object_box))]
    for label, box in ends:
        known = boxes.setdefault(clean_label(label), [])
        if box not in known:
            known.append(box)
    names = {}
    for label, box in ends:
        known = boxes[clean_label(label)]
        number = f" (#{known.index(box) + 1})" if len(known) > 1 else ""
        names[label, box] = clean_label(label) + number
    return names
