"""``moai cache``: what the perception cache holds, whether it is sound, and how to empty it."""

from __future__ import annotations

import json
import re
import time

import click

from moai.cli import show
from moai.errors import AssetError, nearest

_AGE = re.compile(r"(\d+(?:\.\d+)?)\s*([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


@click.group(short_help="Show, check or empty the cache of perceptions.")
def cache() -> None:
    """Show, check or empty the cache of perceptions.

    An expert's findings in an image are stored under the image's pixels and the expert's name, version, options and
    weights, so that it runs once. The cache is a folder in $MOAI_CACHE, or in ~/.cache/moai.
    """


@cache.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table.")
def info(as_json: bool) -> None:
    """Show entries and bytes, per expert, and what else lies in the cache folder."""
    from moai.perception.cache.contents import describe_cache

    facts = describe_cache()
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    _print_info(facts)


@cache.command()
@click.option("--expert", metavar="NAME", help="Only this expert's.")
@click.option("--older-than", metavar="AGE", help="Only those made before that: 30d, 12h, 2w.")
@click.option("--yes", is_flag=True, help="Do not ask.")
def clear(expert: str | None, older_than: str | None, yes: bool) -> None:
    """Drop perceptions; experts run again when they are needed. Downloaded assets stay."""
    from moai.perception.cache import maintenance
    from moai.perception.cache.contents import existing_store, remove_damaged

    age = None if older_than is None else _age(older_than)
    store = existing_store()
    known = [share.expert for share in maintenance.shares(store)] if store is not None else []
    if store is None or not (known or maintenance.damaged_files(store.folder)):
        click.echo("the cache holds no perceptions")
        return
    if expert is not None and expert not in known:
        raise AssetError(f"the cache holds nothing of an expert '{expert}'{nearest(expert, known)}")
    if not yes:
        what = f"of expert '{expert}'" if expert else "of all experts"
        when = f" made more than {older_than} ago" if older_than else ""
        click.confirm(f"Drop the perceptions {what}{when} in {store.path}?", abort=True, err=True)
    gone = maintenance.clear(store, expert, age)
    if expert is None and age is None:
        remove_damaged(store.folder)
    click.echo(f"dropped {gone} perceptions; {len(store)} are left")


@cache.command()
def verify() -> None:
    """Read every perception and check it against its checksum; exit with code 1 when one was damaged.

    A damaged one is dropped, and made anew when it is needed next.
    """
    from moai.assets.cache import cache_dir
    from moai.perception.cache import maintenance
    from moai.perception.cache.contents import existing_store

    earlier = maintenance.damaged_files(cache_dir() / "perceptions")
    store = existing_store()
    checked = bad = 0
    for key, reason in maintenance.verify(store) if store is not None else ():
        checked += 1
        if reason is not None:
            bad += 1
            show.warn(f"entry {key[:12]} was damaged and is dropped: {reason}")
    whole = (
        [path for path in maintenance.damaged_files(store.folder) if path not in earlier] if store is not None else []
    )
    verdict = "the file was damaged as a whole" if whole else f"{bad} damaged" if bad else "all sound"
    click.echo(f"checked {checked} perceptions: {verdict}")
    if bad or whole:
        click.get_current_context().exit(1)


def _age(text: str) -> float:
    """Parse an age: ``"30d"`` -> seconds."""
    found = _AGE.fullmatch(text.strip().lower())
    if found is None:
        raise AssetError(f"--older-than {text}: write a number and a unit, such as 30d, 12h or 2w")
    return float(found[1]) * _SECONDS[found[2]]


def _print_info(facts: dict) -> None:
    from moai.perception.running.memory import format_size

    if facts["path"] is None:
        click.echo(f"no perceptions are cached in {facts['folder']}")
    else:
        click.echo(f"{facts['path']}: {facts['entries']} perceptions, {format_size(facts['bytes'])} on disk")
    if facts["experts"]:
        rows = show.table("expert", "entries", "data", "newest")
        for share in facts["experts"]:
            newest = "" if share["newest"] is None else time.strftime("%Y-%m-%d %H:%M", time.localtime(share["newest"]))
            values = (share["expert"], share["entries"], format_size(share["bytes"]), newest)
            rows.add_row(*(show.cell(value) for value in values))
        show.console().print(rows)
    if facts["set_aside"]:
        show.warn(f"{len(facts['set_aside'])} files of damaged caches were set aside; `moai cache clear` removes them")
    for name, size in facts["assets"].items():
        click.echo(f"beside it: {name}, {format_size(size)}")
