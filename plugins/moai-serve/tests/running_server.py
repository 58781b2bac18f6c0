"""A server of a run on loopback: uvicorn itself, in a thread; and what clients send to it."""

from __future__ import annotations

import base64
import contextlib
import threading
import time
from dataclasses import dataclass
from typing import Any

import pytest
import tiny
import uvicorn
from moai_serve.application import Server, application
from moai_serve.command import server_socket
from moai_serve.running import build_server
from moai_serve.settings import Settings

NAME = "tiny"
QUESTION = "What color is the shape?"


@dataclass
class Running:
    """A server that runs, and what is in it."""

    port: int
    server: uvicorn.Server
    inside: Server

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, **options: Any):
        openai = pytest.importorskip("openai", reason="the openai client is not installed: pip install openai")
        return openai.OpenAI(base_url=self.base, **{"api_key": "none", "max_retries": 0, **options})


@contextlib.contextmanager
def running(run, **settings: Any):
    """Serve ``run`` in a thread."""
    app = application(run, Settings(**{"name": NAME, **settings}))
    server = build_server(app, "127.0.0.1", 0)
    with server_socket(server) as listening:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
        thread.start()
        try:
            while not server.started:
                time.sleep(0.005)
            yield Running(listening.getsockname()[1], server, app.state.server)
        finally:
            server.should_exit = True
            thread.join()


def data_url(image) -> str:
    """The picture as a client sends it."""
    return f"data:image/png;base64,{base64.b64encode(tiny.png(image)).decode()}"


def asking(text: str, *images) -> list[dict[str, Any]]:
    """Messages of one question about pictures."""
    parts = [{"type": "image_url", "image_url": {"url": data_url(image)}} for image in images]
    return [{"role": "user", "content": [*parts, {"type": "text", "text": text}]}]
