"""``moai experts``: who is registered, by which distribution, and whether it can run here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show

if TYPE_CHECKING:
    from moai.expert import Expert


@click.command(short_help="List the experts that are registered, and whether they can run.")
@click.argument("name", required=False)
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def experts(name: str | None, as_json: bool) -> None:
    """List the experts that are registered, and whether they can run.

    With NAME: that expert's options, licence and weights. A plugin that does not load is listed with the reason.
    MOAI_PLUGINS= loads no plugin, MOAI_PLUGINS=a,b only those two.
    """
    from moai.perception.running.description import describe_expert
    from moai.plugins import load_registry

    known = load_registry()  # registry() would warn of its problems a second time
    chosen = [known.get_expert(name)] if name else list(known.experts.values())
    listed = [describe_expert(expert, known.origins.get(expert.name)) for expert in chosen]
    if as_json:
        problems = [{"plugin": item.plugin, "reason": item.reason} for item in known.problems]
        click.echo(json.dumps(listed[0] if name else {"experts": listed, "problems": problems}, indent=2))
        return
    if name:
        _print_one(chosen[0], listed[0])
    else:
        _print_all(listed)
    for problem in known.problems:
        show.warn(f"plugin '{problem.plugin}': {problem.reason}")


def _memory(expert: type[Expert]) -> str:
    from moai.perception.running.memory import format_size

    if isinstance(expert.memory, int):
        return f"about {format_size(expert.memory)}"
    return "not stated" if expert.memory is None else "depends on the options"


def _print_all(listed: list[dict[str, Any]]) -> None:
    if not listed:
        click.echo("no expert is registered; in a clone of moai: pip install ./plugins/moai-shapes")
        return
    rows = show.table("role", "name", "version", "from", "status")
    for facts in listed:
        rows.add_row(*(show.cell(facts[key]) for key in ("role", "name", "version", "from", "status")))
    show.console().print(rows)


def _print_one(expert: type[Expert], facts: dict[str, Any]) -> None:
    click.echo(f"{facts['name']} {facts['version']} ({facts['role']}), from {facts['from']}")
    doc = (expert.__doc__ or "").strip().partition("\n\n")[0]
    if doc:
        click.echo("  " + " ".join(doc.split()))
    click.echo(f"  status:    {facts['status']}")
    click.echo(f"  builds on: {', '.join(facts['requires'])}" if facts["requires"] else "  builds on: nothing")
    click.echo(f"  licence:   {facts['licence'] or 'not stated'}")
    click.echo(f"  weights:   {facts['weights']}")
    click.echo(f"  memory:    {_memory(expert)}")
    click.echo(f"  threads:   {'may run in several at once' if facts['thread_safe'] else 'one call at a time'}")
    if not facts["options"]:
        click.echo("  options:   none")
        return
    rows = show.table("option", "type", "default", "limits", "what it does")
    for option in facts["options"]:
        default = "required" if option["required"] else json.dumps(option["default"])
        values = (option["name"], option["type"], default, option["limits"], option["doc"])
        rows.add_row(*(show.cell(value) for value in values))
    show.console().print(rows)
