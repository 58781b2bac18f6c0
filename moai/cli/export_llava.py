"""``moai export-llava``: a run folder to a LLaVA checkpoint."""

from __future__ import annotations

from pathlib import Path

import click


@click.command("export-llava", short_help="Convert a run into a LLaVA checkpoint.")
@click.argument("run")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
def export_llava(run: str, out: Path) -> None:
    """Convert a run into a LLaVA checkpoint.

    RUN has an encoder of transformers, the connector mlp and no mixers, as llava-1.5/llava-1.5-7b has. OUT is a new
    folder, which LlavaForConditionalGeneration and LlavaProcessor of transformers open.
    """
    from moai.model.llava.exporting import export_llava as convert

    click.echo(f"exported: {convert(run, out)}")
