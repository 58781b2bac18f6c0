"""Describe experts: who made them, whether they can run here, and their options.

Knows: the interface of experts. Nothing heavy is imported.
"""

from __future__ import annotations

from typing import Any

from moai.expert import Expert


def describe_expert(expert: type[Expert], origin: str | None = None) -> dict[str, Any]:
    """Describe an expert as plain JSON types.

    Args:
        expert: the class.
        origin: the distribution that registered it, as in ``Registry.origins``.

    Returns:
        ``name``, ``role``, ``version``, ``from``, ``installed``, ``status`` (``installed``, or which modules are
        missing and what installs them), ``requires``, ``licence``, ``weights``, ``thread_safe``, ``memory`` (bytes, or
        None where it is not stated or depends on the options) and ``options``: per option ``name``, ``type``,
        ``default``, ``required``, ``limits`` and ``doc``.
    """
    return {
        "name": expert.name,
        "role": expert.role,
        "version": expert.version,
        "from": origin or "unknown",
        "installed": not expert.missing(),
        "status": _status(expert),
        "requires": list(expert.requires),
        "licence": expert.licence,
        "weights": expert.weights,
        "thread_safe": expert.thread_safe,
        "memory": expert.memory if isinstance(expert.memory, int) else None,
        "options": _options(expert),
    }


def _status(expert: type[Expert]) -> str:
    missing = expert.missing()
    if not missing:
        return "installed"
    fix = f"; install with: {expert.install}" if expert.install else ""
    return f"missing {', '.join(missing)}{fix}"


def _options(expert: type[Expert]) -> list[dict[str, Any]]:
    listed = []
    for name, field in expert.Options.model_fields.items():
        default = None if field.is_required() else field.get_default(call_default_factory=True)
        plain_default = default if isinstance(default, (str, int, float, bool, type(None))) else _jsonable(default)
        listed.append(
            {
                "name": name,
                "type": _type_name(field.annotation),
                "default": plain_default,
                "required": field.is_required(),
                "limits": ", ".join(_limit(item) for item in field.metadata),
                "doc": " ".join((field.description or "").split()),
            }
        )
    return listed


def _limit(constraint: Any) -> str:
    for attribute, sign in (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<=")):
        if hasattr(constraint, attribute):
            return f"{sign} {getattr(constraint, attribute)}"
    return str(constraint)


def _type_name(annotation: Any) -> str:
    plain_class = isinstance(annotation, type) and not hasattr(annotation, "__args__")
    return annotation.__name__ if plain_class else str(annotation).replace("typing.", "")


def _jsonable(value: Any) -> Any:
    return list(value) if isinstance(value, (tuple, list, set, frozenset)) else str(value)
