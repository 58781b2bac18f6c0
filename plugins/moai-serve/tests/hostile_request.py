"""One hostile request: bytes on a socket, and which answers are right."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable
from dataclasses import dataclass

from running_server import NAME

PATH = "/v1/chat/completions"
REFUSED = frozenset(range(400, 500))
ANSWERED = REFUSED | {200}  # odd, but allowed: what matters is that it is answered
SILENT = ANSWERED | {0}  # a client that leaves gets nothing, and may get something
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
LIMITS = {
    "max_body": 300_000,
    "header_timeout": 0.4,
    "body_timeout": 0.4,
    "max_images": 3,
    "max_turns": 8,
    "max_tokens": 32,
    "max_pixels": 4_000_000,
    "timeout": 20.0,
}


@dataclass(frozen=True)
class Attack:
    """One hostile request: ``send`` talks to the socket; the status that comes back has to be among ``right``."""

    kind: str
    name: str
    send: Callable[[socket.socket], None]
    right: frozenset[int] = REFUSED


def message(body: bytes, headers: bytes = b"", path: str = PATH, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    head = f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    return head.encode() + headers + b"\r\n" + body


def raw(data: bytes) -> Callable[[socket.socket], None]:
    return lambda sock: sock.sendall(data)


def chat(content: object = "Why?", **fields: object) -> dict[str, object]:
    given = {"model": NAME, "messages": [{"role": "user", "content": content}], "max_tokens": 2}
    return {**given, **fields}


def packed(value: object) -> bytes:
    return json.dumps(value).encode()


def answer(port: int, attack: Attack, patience: float = 10.0) -> tuple[int, bytes]:
    """Send one, and read what comes back: the status, 0 for none, and the body of the first answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=patience) as sock:
        received = b""
        try:
            attack.send(sock)
            while not whole(received) and (part := sock.recv(65536)):
                received += part
        except (ConnectionError, BrokenPipeError, OSError) as error:
            if isinstance(error, TimeoutError):
                raise
            received += rest(sock)
    head, _, body = received.removeprefix(GO_ON).partition(b"\r\n\r\n")
    return (int(head.split(b" ", 2)[1]) if head.startswith(b"HTTP/1.1 ") else 0), body


def rest(sock: socket.socket) -> bytes:
    """What had arrived before the connection broke."""
    try:
        return sock.recv(65536)
    except OSError:
        return b""


def whole(received: bytes) -> bool:
    """Whether an answer is there, by its length; a stream ends with its connection."""
    head, end, body = received.removeprefix(GO_ON).partition(b"\r\n\r\n")
    sizes = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
    return bool(end) and (len(body) >= int(sizes[0]) if sizes else body.endswith(b"0\r\n\r\n"))
