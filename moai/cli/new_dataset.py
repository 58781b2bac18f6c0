"""``moai new-dataset``: writes a plugin package with a data format that passes its own test, to be changed there."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from moai.errors import PluginError


@click.command("new-dataset", short_help="Write a plugin package with a data format to start from.")
@click.argument("name")
@click.option("--folder", metavar="PATH", help="Where to write it; moai-NAME when left out.")
def new_dataset(name: str, folder: str | None) -> None:
    """Write a plugin package with a data format to start from.

    The package has a pyproject.toml, one module, a README, a sample file and a test, and passes its test as written.
    """
    from moai.plugins import load_registry
    from moai.scaffold import check_name, write_dataset

    check_name(name, "a data format")
    if name in load_registry().formats:
        raise PluginError(f"a data format '{name}' is registered already; choose another name")
    path = Path(folder) if folder else Path(f"moai-{name}")
    for written in write_dataset(name, path):
        click.echo(f"wrote {written}")
    quoted = shlex.quote(str(path))
    click.echo(f"next: pip install -e {quoted} && python -m pytest {quoted}")
