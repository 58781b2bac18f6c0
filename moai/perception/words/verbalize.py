"""Perception to text, by template: pure and deterministic.

Knows: the order in which roles speak, styles, and the wording of the four roles in English (the paper's, as its
published code prints it). Other wordings are in ``wording_*.py`` or come from plugins. Labels and recognised text are
untrusted: control characters become spaces so that nobody can start a new line, and every other character stays as it
was read.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable, Sequence

from moai import types
from moai.errors import PluginError, RecipeError
from moai.plugins import Registry
from moai.plugins import registry as process_registry
from moai.types import ROLES, Box, Detection, Perception, Relation, Segment, describe

PAPER = "paper"  # the style that is registered under the language alone
_STYLED = "-x-"  # between a language and its style, as private parts of language tags are written

# Control characters (Unicode category Cc), line and paragraph separators, and any run of white space.
_BLANK = re.compile(r"[\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
_SURROGATE = re.compile(r"[\ud800-\udfff]")  # cannot be encoded, so no tokenizer takes it
_SUFFIX = re.compile(r"(?:-(?:merged|other|stuff))+$")  # of the COCO panoptic class names


def verbalize(
    perception: Perception,
    language: str = "en",
    style: str = PAPER,
    registry: Registry | None = None,
    scores: bool = False,
    merge_duplicates: bool = False,
) -> str:
    """Put a perception into words.

    Args:
        perception: what the experts saw; failures are not spoken.
        language: of the templates, e.g. ``"en"``.
        style: ``"paper"``, or another one that ``language`` has, e.g. ``"compact"``.
        registry: where the templates are; the process-wide one when None.
        scores: say each fact's score behind it, ``(0.87)``. A plugin's template does so when it takes ``scores``.
        merge_duplicates: say an object once that is a segment and a detection; see ``types.merge_duplicates``.

    Returns:
        One line: panoptic, open_world, scene_graph, ocr, then the plugins' own roles in alphabetical order. Roles with
        nothing to say leave nothing behind; ``""`` when nothing was seen.

    Raises:
        RecipeError: no templates in ``language`` or for ``style``, or one of the four roles lacks its template.
        PluginError: a plugin's template failed.
    """
    table = process_registry() if registry is None else registry
    spoken = _key(table, language, style)
    perception = types.merge_duplicates(perception) if merge_duplicates else perception
    parts = [_render(table, role, spoken, perception, scores) for role in ROLES]
    for role in sorted({*perception.notes, *(source.role for source in perception.sources)} - set(ROLES)):
        own = next((key for key in (spoken, language) if (role, key) in table.templates), None)
        parts.append(_render(table, role, own, perception, scores) if own else notes_template(role, perception))
    parts.extend(notes_template(role, perception) for role in ROLES)
    return " ".join(part for part in map(clean, parts) if part)


def languages(registry: Registry) -> dict[str, list[str]]:
    """The languages that one of the four roles can be put into, each with its styles."""
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for role, key in registry.templates if role in ROLES):
        language, _, style = key.partition(_STYLED)
        found.setdefault(language, []).append(style or PAPER)
    return found


def clean(text: str) -> str:
    """Collapse control characters and white space to single spaces; keep every other character."""
    return _BLANK.sub(" ", _SURROGATE.sub("\ufffd", text)).strip()


def clean_label(text: str) -> str:
    """``clean``, without the suffixes ``-merged``, ``-other`` and ``-stuff`` of the COCO panoptic class names."""
    cleaned = clean(text)
    return _SUFFIX.sub("", cleaned) or cleaned


def panoptic_template(perception: Perception, scores: bool = False) -> str:
    """Boxes and names of the segments."""
    return _objects(perception.segments, scores)


def open_world_template(perception: Perception, scores: bool = False) -> str:
    """Boxes and names of the detections."""
    return _objects(perception.detections, scores)


def scene_graph_template(perception: Perception, scores: bool = False) -> str:
    """Relations; instances that share a name are numbered, ``person (#1)``, in the order of their first mention."""
    names = instance_names(perception.relations)
    facts = []
    for r in perception.relations:
        said = f"{names[r.subject, r.subject_box]} is {clean(r.predicate)} {names[r.object, r.object_box]}"
        facts.append(with_score(said, r.score, scores))
    return _sentence("The image includes relationships between objects: ", facts)


def ocr_template(perception: Perception, scores: bool = False) -> str:
    """The lines of text, as read."""
    return _sentence("The image includes text descriptions: ", text_facts(perception, scores))


def notes_template(role: str, perception: Perception) -> str:
    """The plain sentences of a role that has no template: they are spoken as they are."""
    return " ".join(text for text in map(clean, perception.notes.get(role, ())) if text)


TEMPLATES = {
    ("panoptic", "en"): panoptic_template,
    ("open_world", "en"): open_world_template,
    ("scene_graph", "en"): scene_graph_template,
    ("ocr", "en"): ocr_template,
}


def box_facts(items: Iterable[Segment | Detection], scores: bool = False) -> list[str]:
    """``[x0, y0, x1, y1] name`` of each segment or detection, with two decimals."""
    named = [(item, clean_label(describe(item))) for item in items]
    return [with_score(f"{write_box(item.box)} {name}", item.score, scores) for item, name in named if name]


def text_facts(perception: Perception, scores: bool = False) -> list[str]:
    """The lines of text that hold more than white space."""
    return [with_score(text, line.score, scores) for line in perception.texts if (text := clean(line.text))]


def write_box(box: Box) -> str:
    """``[0.31, 0.22, 0.71, 0.66]``, in every language."""
    return f"[{', '.join(f'{value:.2f}' for value in box)}]"


def with_score(fact: str, score: float, scores: bool = True) -> str:
    """The fact, followed by its score with two decimals when ``scores`` is set."""
    return f"{fact} ({score:.2f})" if scores else fact


def instance_names(relations: Iterable[Relation], number: str = " (#{})") -> dict[tuple[str, Box | None], str]:
    """``(label, box)`` -> the name to say; the box tells two instances of one label apart, which are numbered."""
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


def _key(table: Registry, language: str, style: str) -> str:
    """What the templates of a language and style are registered under."""
    known = languages(table)
    if language not in known:
        raise RecipeError(f"no templates in language '{language}'; known: {', '.join(sorted(known))}")
    if style not in known[language]:
        raise RecipeError(f"language '{language}' has no style '{style}'; known: {', '.join(sorted(known[language]))}")
    return language if style == PAPER else f"{language}{_STYLED}{style}"


def _render(table: Registry, role: str, language: str, perception: Perception, scores: bool) -> str:
    template = table.get_template(role, language)
    try:
        text = template(perception, scores=True) if scores and _takes_scores(template) else template(perception)
    except Exception as error:
        raise PluginError(
            f"the template for role '{role}' in '{language}' raised {type(error).__name__}: {error}; "
            "mend or uninstall the plugin that registers it"
        ) from error
    if not isinstance(text, str):
        raise PluginError(f"the template for role '{role}' in '{language}' returned {type(text).__name__}, not a str")
    return text


def _takes_scores(template: Callable[..., str]) -> bool:
    return "scores" in inspect.signature(template).parameters


def _objects(items: Sequence[Segment | Detection], scores: bool) -> str:
    return _sentence("The image includes bounding box coordinates and their objects: ", box_facts(items, scores))


def _sentence(start: str, facts: list[str]) -> str:
    if not facts:
        return ""
    listed = facts[0] if len(facts) == 1 else f"{', '.join(facts[:-1])}, and {facts[-1]}"
    return f"{start}{listed}."
