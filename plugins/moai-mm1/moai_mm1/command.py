"""Define ``moai mm1-upcycle``: a dense host to a mixture of experts."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("mm1-upcycle", short_help="Make a dense host a mixture of experts, as MM1 does.")
@click.argument("host")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--experts", type=click.IntRange(min=2), default=8, show_default=True, help="Experts of a layer.")
@click.option("--every", type=click.IntRange(min=1), default=2, show_default=True, help="Every k-th layer is one.")
@click.option("--chosen", type=click.IntRange(min=1), default=2, show_default=True, help="Experts of a token.")
@click.option("--seed", type=int, default=0, show_default=True, help="Seed of the routers' first weights.")
def upcycle(host: str, out: Path, experts: int, every: int, chosen: int, seed: int) -> None:
    """Make a dense host a mixture of experts, as MM1 does.

    HOST is a Llama, as a recipe's host.reference names it. OUT is a new folder, which any recipe takes as
    host.reference where this plugin is installed. Until it trains, it computes what HOST does.
    """
    from moai_mm1.upcycling import upcycle as make

    made = make(host, out, experts=experts, every=every, chosen=chosen, seed=seed)
    layers = ", ".join(map(str, made.config.mixture_layers()))
    click.echo(f"written: {out}: {sum(p.numel() for p in made.parameters()) / 1e6:,.1f} M parameters")
    click.echo(f"  {experts} experts, {chosen} a token, in layers {layers}")
    click.echo(f"next:    moai train RECIPE host.reference={shlex.quote(str(out))}")
