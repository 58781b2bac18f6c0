"""``moai experts``: who is registered, by which distribution, and whether it can run here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show

if TYPE_CHECKING:
    from moai.expert import Expert
    from moai.plugins import Registry


@click.command(short_help="List the experts that are registered, and whether they can run.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def experts(name: str | None, as_json: bool) -> None:
    """List the experts that are registered, and whether they can run.

    With NAME: that expert's options, licence and weights. A plugin that does not load is listed with the reason.
    MOAI_PLUGINS= loads no plugin, MOAI_PLUGINS=a,b only those two.
    """
    from moai.plugins import load_registry

    known = load_registry()  # registry() would warn of its problems a second time
    chosen = [known.get_expert(name)] if name else list(known.experts.values())
    if as_json:
        problems = [{"plugin": item.plugin, "reason": item.reason} for item in known.problems]
        listed = [describe(expert, known) for expert in chosen]
        click.echo(json.dumps(listed[0] if name else {"experts": listed, "problems": problems}, indent=2))
        return
    if name:
        _print_one(chosen[0], known)
    else:
        _print_all(chosen, known)
    for problem in known.problems:
        show.warn(f"plugin '{problem.plugin}': {problem.reason}")


def status(expert: type[Expert]) -> str:
    """``installed``, or which modules are missing and what installs them."""
    missing = expert.missing()
    if not missing:
        return "installed"
    fix = f"; install with: {expert.install}" if expert.install else ""
    return f"missing {', '.join(missing)}{fix}"


def describe(expert: type[Expert], known: Registry) -> dict[str, Any]:
    """Everything there is to say about an expert, as plain JSON types."""
    return {
        "name": expert.name,
        "role": expert.role,
        "version": expert.version,
        "from": known.origins.get(expert.name, "unknown"),
        "installed": not expert.missing(),
        "status": status(expert),
        "requires": list(expert.requires),
        "licence": expert.licence,
        "weights": expert.weights,
        "thread_safe": expert.thread_safe,
        "memory": expert.memory if isinstance(expert.memory, int) else None,
        "options": options_of(expert),
    }


def options_of(expert: type[Expert]) -> list[dict[str, Any]]:
    """Name, type, default, limits and doc of each option."""
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


def _memory(expert: type[Expert]) -> str:
    from moai.perception.running.memory import format_size

    if isinstance(expert.memory, int):
        return f"about {format_size(expert.memory)}"
    return "not stated" if expert.memory is None else "depends on the options"


def _print_all(chosen: list[type[Expert]], known: Registry) -> None:
    if not chosen:
        click.echo("no expert is registered; in a clone of moai: pip install ./plugins/moai-shapes")
        return
    rows = show.table("role", "name", "version", "from", "status")
    for expert in chosen:
        values = (expert.role, expert.name, expert.version, known.origins.get(expert.name, "unknown"), status(expert))
        rows.add_row(*(show.cell(value) for value in values))
    show.console().print(rows)


def _print_one(expert: type[Expert], known: Registry) -> None:
    facts = describe(expert, known)
    click.echo(f"{facts['name']} {facts['version']} ({facts['role']}), from {facts['from']}")
    doc = (expert.__doc__ or "").strip().partition("\n\n")[0]
    if doc:
        click.echo("  " + " ".join(doc.split()))
    click.echo(f"  status:    {facts['status']}")
    click.echo(f"  builds on: {', '.join(facts['requires'])}" if facts["requires"] else "  builds on: nothing")
    click.echo(f"  licence:   {facts['licence'] or 'not stated'}")
    click.echo(f"  weights:   {facts['weights']}")
    click.echo(f"  memory:    {_memory(expert)}")
    click.echo(f"  threads:   {'may look in several at once' if facts['thread_safe'] else 'one call at a time'}")
    if not facts["options"]:
        click.echo("  options:   none")
        return
    rows = show.table("option", "type", "default", "limits", "what it does")
    for option in facts["options"]:
        default = "required" if option["required"] else json.dumps(option["default"])
        values = (option["name"], option["type"], default, option["limits"], option["doc"])
        rows.add_row(*(show.cell(value) for value in values))
    show.console().print(rows)
