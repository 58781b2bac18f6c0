"""``moai doctor``: what is installed, what fits, and what to fix."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import click

from moai.cli import show
from moai.dependencies import DISTRIBUTION

if TYPE_CHECKING:
    from moai.doctor import Finding

STATES = {
    "fine": "",
    "newer": "newer than tested",
    "old": "too old",
    "outside": "not allowed",
    "missing": "missing",
    "unreadable": "damaged",
}


@click.command(short_help="Say what is installed, what fits, and what must be fixed.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of tables.")
@click.pass_context
def doctor(ctx: click.Context, as_json: bool) -> None:
    """Say what is installed, what fits, and what must be fixed.

    Python, dependencies, torch's devices, the cache folder, plugins, cached wheels and models. Nothing is downloaded
    or changed. The exit code is 1 where something must be fixed; warnings leave it at 0.
    """
    from moai.doctor import examine

    if sys.stderr.isatty():
        click.echo("importing torch and transformers, which takes a few seconds", err=True)
    report = examine()
    if as_json:
        click.echo(json.dumps(report.to_json(), indent=2))
    else:
        for key, draw in DRAWN.items():
            if report.sections[key] is not None:
                draw(report.sections[key])
        _draw_findings(report.findings)
    ctx.exit(0 if report.ok else 1)


def _draw_moai(facts: dict[str, Any]) -> None:
    _say(f"moai {facts['version']} in {facts['folder']}")


def _draw_python(facts: dict[str, Any]) -> None:
    _say(f"Python {facts['version']} (tested: {', '.join(facts['tested'])}), {facts['executable']}")


def _draw_platform(facts: dict[str, Any]) -> None:
    _say(f"{facts['system']}, {facts['machine']}, {facts['processors']} processors")


def _draw_dependencies(listed: list[dict[str, Any]]) -> None:
    rows = [(one["name"], one["installed"] or "", one["tested"] or "", one["allowed"], _state(one)) for one in listed]
    _table(("dependency", "installed", "tested", "allowed", "state"), rows)


def _state(dependency: dict[str, Any]) -> str:
    state, extras, needed_by = STATES[dependency["state"]], dependency["extras"], dependency["needed_by"]
    if extras:
        role = f"extra: {', '.join(extras)}"
        return f"{state}, {role}" if state and dependency["installed"] else role
    return ", ".join(filter(None, (state, "" if needed_by == DISTRIBUTION else f"({needed_by})")))


def _draw_imports(facts: dict[str, Any]) -> None:
    torch = facts["torch"]
    if torch is None:
        _say("torch: cannot be imported")
    else:
        _say(f"torch {torch['version']}")
        _say(f"  cpu: {torch['threads']} threads, {torch['instructions']}")
        for device in torch["cuda"]:
            _say(f"  cuda:{device['index']}: {device['name']}, {_size(device['bytes'])}")
        if not torch["cuda"]:
            _say("  cuda: none")
        _say(f"  mps: {'available' if torch['mps'] else 'none'}")
    words = {True: "ok", False: "fails", None: "not tried"}
    _say("imports: " + ", ".join(f"{one['name']} {words[one['ok']]}" for one in facts["modules"]))


def _draw_cache(facts: dict[str, Any]) -> None:
    size = _size(facts["bytes"]) if facts["exists"] else "not made yet"
    writable = f"writable, {_size(facts['free'])} free" if facts["writable"] else "cannot be written"
    _say(f"cache {facts['folder']}: {size}, {writable}")


def _draw_plugins(facts: dict[str, Any]) -> None:
    if facts["restricted_to"] is not None:
        _say(f"MOAI_PLUGINS restricts the plugins to: {facts['restricted_to'] or 'none'}")
    rows = [
        (one["name"], f"{one['distribution'] or ''} {one['version'] or ''}", "; ".join(one["problems"]) or "ok")
        for one in facts["installed"]
    ]
    _table(("plugin", "from", "state"), rows)
    rows = [(one["name"], one["role"], one["from"] or "", _expert_state(one)) for one in facts["experts"]]
    _table(("expert", "role", "from", "state"), rows)


def _expert_state(expert: dict[str, Any]) -> str:
    if not expert["missing"]:
        return "installed"
    return f"not installed: lacks {', '.join(expert['missing'])}"


def _draw_assets(listed: list[dict[str, Any]]) -> None:
    rows = [
        (one["kind"], f"{one['name']} {one['version']}", one["state"], _size(one["bytes"]) if one["bytes"] else "")
        for one in listed
    ]
    _table(("asset", "name", "state", "size"), rows)


DRAWN = {
    "moai": _draw_moai,
    "python": _draw_python,
    "platform": _draw_platform,
    "dependencies": _draw_dependencies,
    "imports": _draw_imports,
    "cache": _draw_cache,
    "plugins": _draw_plugins,
    "assets": _draw_assets,
}


def _draw_findings(findings: list[Finding]) -> None:
    _say("")
    for finding in findings:
        if finding.level == "warning":
            _say(f"warning: {finding.problem}; {finding.fix}")
    errors = [finding for finding in findings if finding.level == "error"]
    for finding in errors:
        _say(f"to fix: {finding.problem}; {finding.fix}")
    if not errors:
        _say("nothing must be fixed")


def _table(columns: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """A table by rich, or plain columns where rich is what is broken."""
    rows = [tuple(show.encodable(show.plain(cell)) for cell in row) for row in rows]
    if not rows:
        return
    try:
        drawn, console = show.table(*columns), show.console()
    except ImportError:
        for row in (columns, *rows):
            click.echo("  ".join(row).rstrip())
        return
    for row in rows:
        drawn.add_row(*(show.cell(cell) for cell in row))
    console.print(drawn)


def _say(line: str) -> None:
    click.echo(show.encodable(show.plain(line)))


def _size(count: int) -> str:
    from moai.perception.running.memory import format_size

    return format_size(count)
