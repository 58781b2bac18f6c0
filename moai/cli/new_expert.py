"""``moai new-expert``: writes a plugin package that passes its own contract test, to be changed from there."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from moai.cli import show
from moai.errors import PluginError


@click.command("new-expert", short_help="Write a plugin package with an expert to start from.")
@click.argument("name")
@click.option(
    "--role",
    default="open_world",
    show_default=True,
    help="panoptic, open_world, scene_graph, ocr, or a name of your own for what no role says yet.",
)
@click.option("--folder", metavar="PATH", help="Where to write it; moai-NAME when left out.")
def new_expert(name: str, role: str, folder: str | None) -> None:
    """Write a plugin package with an expert to start from.

    The package has a pyproject.toml, one module, a README and a test, and passes its test as written.
    """
    import difflib

    from moai.plugins import load_registry
    from moai.scaffold import ROLES, check_name, write_plugin

    check_name(name, "an expert")
    known = load_registry()
    if name in known.experts:
        raise PluginError(f"an expert '{name}' is installed already ({known.origins[name]}); choose another name")
    path = Path(folder) if folder else Path(f"moai-{name}")
    for written in write_plugin(name, role, path):
        click.echo(f"wrote {written}")
    roles = {*ROLES, *(kind.role for kind in known.experts.values())}
    if role not in roles:
        near = difflib.get_close_matches(role, sorted(roles), n=1)
        show.warn(f"'{role}' is a new role{f'; did you mean {near[0]}?' if near else '; it has a template of its own'}")
    quoted = shlex.quote(str(path))
    click.echo(f"next: pip install -e {quoted} && python -m pytest {quoted} && moai experts {name}")
