"""Define ``moai studio``: a web page on this machine, to ask about pictures and see what answers rest on."""

from __future__ import annotations

import logging
import secrets
import socket
import threading
import webbrowser
from collections.abc import Sequence
from pathlib import Path

import click

from moai.errors import CheckpointError, ExpertError

LINE = "Ask about pictures in the browser, and see what answers rest on."


@click.command("studio", short_help=LINE)
@click.argument("run", required=False, type=click.Path(path_type=Path))
@click.option(
    "--runs",
    default="runs",
    show_default=True,
    type=click.Path(path_type=Path),
    help="Folder whose runs are offered where no RUN is given.",
)
@click.option("--experts", metavar="A,B", help="Which experts look where no run is chosen [all that are installed].")
@click.option("--port", type=click.IntRange(0, 65535), default=7860, show_default=True, help="0: any free one.")
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on. On another one than loopback the page needs the key in the address that is printed.",
)
@click.option("--browser/--no-browser", default=True, help="Open the page in the browser.")
def studio(run: Path | None, runs: Path, experts: str | None, port: int, host: str, browser: bool) -> None:
    """Ask about pictures in the browser, and see what answers rest on.

    RUN is a folder made by `moai train`; without it the page offers the runs in --runs, and experts alone. The page is
    reached from this machine only, and loads nothing from anywhere else.
    """
    import ipaddress

    from moai_studio.runs import find_runs, is_run

    if run is not None and not is_run(run):
        raise CheckpointError(f"'{run}' holds no finished run; give a folder made by moai train, or leave it out")
    folders = [run] if run is not None else find_runs(runs)
    try:
        loopback = host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError as error:
        raise CheckpointError(f"--host {host}: give an address of this machine, such as 127.0.0.1") from error
    serve(folders, _experts(experts), host, port, None if loopback else secrets.token_urlsafe(16), browser)


def _experts(experts: str | None) -> list[str] | None:
    from moai.plugin_api import registry

    if experts is None:
        return None
    names = list(dict.fromkeys(name.strip() for name in experts.split(",") if name.strip()))
    for name in names:
        registry().get_expert(name)
    if not names:
        raise ExpertError("--experts names none; leave it out for all that are installed")
    return names


def serve(
    folders: Sequence[Path], experts: Sequence[str] | None, host: str, port: int, key: str | None, browser: bool
) -> None:
    """Serve the page until Ctrl-C.

    Args:
        folders: of the runs at hand.
        experts: that look where no run is chosen; None: all that are installed.
        host, port: to listen on.
        key: that the page needs; None: none.
        browser: open the page in the browser.

    Raises:
        CheckpointError: the port is taken.
    """
    import uvicorn

    from moai_studio.application import build_application
    from moai_studio.runs import Runs

    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        listening = socket.create_server((host, port), family=family)
    except OSError as error:
        raise CheckpointError(
            f"cannot listen on {host}, port {port} ({error.strerror or error}); give another --port, or 0 for any"
        ) from error
    host = socket.gethostname() if host in ("0.0.0.0", "::") else host
    named = f"[{host}]" if ":" in host else host
    address = f"http://{named}:{listening.getsockname()[1]}/" + (f"#key={key}" if key else "")
    at_hand = Runs(folders, experts)
    if len(folders) == 1:  # while the page is opened
        threading.Thread(target=at_hand.warm, args=("0",), daemon=True).start()
    app = build_application(at_hand, key=key)
    config = uvicorn.Config(
        app, log_level=logging.WARNING, access_log=False, server_header=False, timeout_graceful_shutdown=3
    )
    click.echo(f"studio at {address}  (Ctrl-C ends it)")
    if browser:
        webbrowser.open(address)
    uvicorn.Server(config).run(sockets=[listening])
