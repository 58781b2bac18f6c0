"""Define ``moai serve``: a run by OpenAI's chat API."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from moai_serve.settings import Settings

LINE = "Serve a run to programs, by OpenAI's chat API."
MEBIBYTE = 1024 * 1024


@click.command("serve", short_help=LINE)
@click.argument("run")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen at.")
@click.option("--port", type=click.IntRange(0, 65535), default=8000, show_default=True, help="0: any that is free.")
@click.option("--api-key", envvar="MOAI_API_KEY", help="What clients have to send; better given as MOAI_API_KEY.")
@click.option("--without-key", is_flag=True, help="Answer everybody who reaches the address.")
@click.option("--name", default="", help="The model's name in requests [the folder's name].")
@click.option("--device", help="cpu, cuda, .. [a GPU when there is one].")
@click.option("--dtype", help="Of the host; float32 gives the same numbers in every batch [as trained].")
@click.option("--batch-size", type=int, default=16, show_default=True, help="Answers that are generated together.")
@click.option("--answering", type=int, default=1, show_default=True, help="Batches at the same time.")
@click.option("--max-waiting", type=int, default=256, show_default=True, help="Answers that wait before 429.")
@click.option("--max-body", type=float, default=20, show_default=True, help="MiB of a request.")
@click.option("--max-pixels", type=float, default=25, show_default=True, help="Million pixels of a request.")
@click.option("--max-images", type=int, default=8, show_default=True, help="Pictures of a request.")
@click.option("--max-turns", type=int, default=64, show_default=True, help="Messages of a request.")
@click.option("--max-tokens", type=int, default=256, show_default=True, help="Tokens of an answer.")
@click.option("--max-memory", type=float, default=1024, show_default=True, help="MiB of all requests together.")
@click.option("--timeout", type=float, default=120, show_default=True, help="Seconds per answer.")
@click.option("--quiet", is_flag=True, help="No line per request.")
def serve(
    run: str, host: str, port: int, device: str | None, dtype: str | None, without_key: bool, quiet: bool, **given: Any
) -> None:
    """Serve a run to programs, by OpenAI's chat API.

    RUN is a run folder or a hub id of one. Point a client of OpenAI's at http://127.0.0.1:8000/v1. It listens to this
    machine alone; another --host needs --api-key, or --without-key. Ctrl-C and SIGTERM answer what waits, then end.
    """
    from moai_serve.running import check_address

    settings = _settings(given, without_key)
    check_address(host, settings)  # before weights are loaded
    from moai_serve.application import application
    from moai_serve.running import build_server

    app = application(run, settings, device=device, dtype=dtype)
    server = build_server(app, host, port)
    with server_socket(server) as listening:
        _show_log(quiet)
        shown = f"[{host}]" if ":" in host else host
        click.echo(f"serving {app.state.server.settings.name} at http://{shown}:{listening.getsockname()[1]}/v1")
        server.run(sockets=[listening])


def server_socket(server: Any) -> Any:
    """Bind the address now, so that its port is known before the first request."""
    import socket

    from moai.errors import MoaiError

    host, port = server.config.host, server.config.port
    try:
        return socket.create_server(
            (host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET, backlog=2048
        )
    except OSError as error:
        raise MoaiError(f"cannot listen at {host}:{port}: {error.strerror or error}; choose another --port") from error


def _settings(given: dict[str, Any], without_key: bool) -> Settings:
    from moai_serve.settings import Settings

    for name in ("max_body", "max_memory"):
        given[name] = int(given[name] * MEBIBYTE)
    given["max_pixels"] = int(given["max_pixels"] * 1_000_000)
    given["max_choices"] = min(Settings.max_choices, max(1, given["batch_size"]))
    return Settings(any_host=without_key, **given)


def _show_log(quiet: bool) -> None:
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(message)s"))
    log = logging.getLogger("moai.serve")
    log.addHandler(handler)
    log.setLevel(logging.WARNING if quiet else logging.INFO)
    log.propagate = False
