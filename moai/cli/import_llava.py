"""``moai import-llava``: a LLaVA checkpoint to a run folder."""

from __future__ import annotations

import shlex
from pathlib import Path

import click


@click.command("import-llava", short_help="Convert a LLaVA checkpoint into a run folder.")
@click.argument("checkpoint")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@click.option("--revision", help="Branch, tag or commit of a hub id.")
def import_llava(checkpoint: str, out: Path, revision: str | None) -> None:
    """Convert a LLaVA checkpoint into a run folder.

    CHECKPOINT is a folder or hub id of transformers' LlavaForConditionalGeneration, such as llava-hf/llava-1.5-7b-hf.
    OUT is a new folder; host and vision encoder are written into it as well.
    """
    from moai.model.llava.importing import import_llava as convert

    made = convert(checkpoint, out, revision=revision)
    click.echo(f"imported: {made.folder}")
    for part in ("host", "vision", "connector"):
        click.echo(f"  {part:<11}{getattr(made, part) / 1e6:>10,.2f} M parameters")
    click.echo(f"  {made.image_tokens} tokens per image")
    click.echo(f"next:     moai ask {shlex.quote(str(made.folder))} IMAGE QUESTION")
