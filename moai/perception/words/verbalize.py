"""Verbalize a perception by template: pure and deterministic.

Knows: the registry of templates, the order of the roles, and styles. The templates of the library are in ``english``,
``compact`` and ``languages``; plugins register more.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable

from moai.errors import PluginError, RecipeError
from moai.perception.words.formatting import clean
from moai.perception.words.merging import merge_findings
from moai.plugins import Registry
from moai.plugins import registry as process_registry
from moai.types import ROLES, Perception

PAPER = "paper"  # the style that is registered under the language alone
NOTHING_FOUND = "nothing_found"  # beside the roles: what is said of no objects
OBJECT_ROLES = ("panoptic", "open_world")
_STYLED = "-x-"  # between a language and its style, as private parts of language tags are written


def verbalize(
    perception: Perception,
    language: str = "en",
    style: str = PAPER,
    registry: Registry | None = None,
    scores: bool = False,
    merge: bool = False,
    say_nothing_found: bool = False,
) -> str:
    """Verbalize a perception.

    Args:
        perception: the experts' findings; failures are left out.
        language: of the templates, e.g. ``"en"``.
        style: ``"paper"``, or another one that ``language`` has, e.g. ``"compact"``.
        registry: where the templates are; the process-wide one when None.
        scores: append each fact's score, ``(0.87)``. A plugin's template does so when it takes ``scores``.
        merge: write each thing once, with the text on it; see
            :func:`~moai.perception.words.merging.merge_findings`. The perception has to be of one image.
        say_nothing_found: say so where a panoptic or open-world expert looked and found no object.

    Returns:
        One line: panoptic, open_world, scene_graph, ocr, then the plugins' own roles in alphabetical order. A role
        without facts adds nothing; an empty perception gives ``""``.

    Raises:
        RecipeError: no templates in ``language`` or for ``style``, or one of the four roles lacks its template; or the
            language and style have no words for nothing found.
        PluginError: a plugin's template failed.
    """
    table = process_registry() if registry is None else registry
    styled = _key(table, language, style)
    perception = merge_findings(perception, language) if merge else perception
    parts = [_render(table, role, styled, perception, scores) for role in ROLES]
    if say_nothing_found and found_nothing(perception):
        parts.insert(0, _render(table, NOTHING_FOUND, styled, perception, scores))
    for role in sorted({*perception.notes, *(source.role for source in perception.sources)} - set(ROLES)):
        own = next((key for key in (styled, language) if (role, key) in table.templates), None)
        parts.append(_render(table, role, own, perception, scores) if own else plain_notes(role, perception))
    parts.extend(plain_notes(role, perception) for role in ROLES)
    return " ".join(part for part in map(clean, parts) if part)


def found_nothing(perception: Perception) -> bool:
    """True when an expert that names objects answered, and none of them found any; a failed expert has not answered."""
    looked = any(source.role in OBJECT_ROLES for source in perception.sources)
    return looked and not perception.segments and not perception.detections


def languages(registry: Registry) -> dict[str, list[str]]:
    """List the languages that one of the four roles has a template in, each with its styles."""
    found: dict[str, list[str]] = {}
    for key in dict.fromkeys(key for role, key in registry.templates if role in ROLES):
        language, _, style = key.partition(_STYLED)
        found.setdefault(language, []).append(style or PAPER)
    return found


def plain_notes(role: str, perception: Perception) -> str:
    """Join the plain sentences of a role that has no template."""
    return " ".join(text for text in map(clean, perception.notes.get(role, ())) if text)


def _key(table: Registry, language: str, style: str) -> str:
    """Return the key under which the templates of a language and style are registered."""
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
            "fix or uninstall the plugin that registers it"
        ) from error
    if not isinstance(text, str):
        raise PluginError(f"the template for role '{role}' in '{language}' returned {type(text).__name__}, not a str")
    return text


def _takes_scores(template: Callable[..., str]) -> bool:
    return "scores" in inspect.signature(template).parameters
