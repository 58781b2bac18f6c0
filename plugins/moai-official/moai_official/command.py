"""Define ``moai import-official``: the published checkpoint to a run folder."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from moai_official.importing import Imported

LINE = "Convert the published MoAI checkpoint into a run folder."


@click.command("import-official", short_help=LINE)
@click.argument("checkpoint", type=click.Path(path_type=Path))
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--config", type=click.Path(path_type=Path), help="The decoder's config.json [beside the weights].")
@click.option("--tokenizer", type=click.Path(path_type=Path), help="Folder with tokenizer.json [beside the weights].")
@click.option("--experts", metavar="A,B", default="", help="Which experts perceive images; none when left out.")
def import_official(checkpoint: Path, out: Path, config: Path | None, tokenizer: Path | None, experts: str) -> None:
    """Convert the published MoAI checkpoint into a run folder.

    CHECKPOINT is its folder, or one file with its state dict (safetensors or torch). OUT is a new folder; host and
    vision encoder are written into it as well.
    """
    from moai.plugin_api import registry
    from moai_official.importing import import_official as convert

    names = list(dict.fromkeys(name.strip() for name in experts.split(",") if name.strip()))
    for name in names:
        registry().get_expert(name)
    print_report(convert(checkpoint, out, config=config, tokenizer=tokenizer, experts=names))


def print_report(made: Imported) -> None:
    """Print what was written, part by part, and what is missing for asking questions."""
    click.echo(f"imported: {made.folder}")
    for part in ("host", "plora", "vision", "connector", "compressor", "mixers"):
        click.echo(f"  {part:<11}{getattr(made, part) / 1e6:>10,.1f} M parameters")
    click.echo(f"  mixers in layers {', '.join(map(str, made.layers))}")
    if made.dropped_rows:
        click.echo(f"  {made.dropped_rows} word embeddings without an output were left out; image tokens replace them")
    if made.processor:
        click.echo(f"next:     moai ask {shlex.quote(str(made.folder))} IMAGE QUESTION")
    else:
        click.echo("no tokenizer.json was found: the model loads, but takes ids only; import again with --tokenizer")
