"""Hostile ways to send: headers, paths, methods, slow senders, clients that leave."""

from __future__ import annotations

import socket
import struct
import time
from collections.abc import Callable, Iterator

from hostile_request import ANSWERED, PATH, SILENT, Attack, chat, message, packed, raw


def headers() -> Iterator[Attack]:
    body = packed(chat())
    start = f"POST {PATH} HTTP/1.1\r\n".encode()
    kind = b"Content-Type: application/json\r\n"
    size = b"Content-Length: %d\r\n" % len(body)
    host = b"Host: 127.0.0.1\r\n"
    heads = {
        "no host": kind + size,
        "two hosts": host + b"Host: evil.example\r\n" + kind + size,
        "foreign host": b"Host: evil.example\r\n" + kind + size,
        "rebound host": b"Host: 127.0.0.1.nip.io\r\n" + kind + size,
        "host with a user": b"Host: 127.0.0.1@evil.example\r\n" + kind + size,
        "odd host": b"Host: [::1\r\n" + kind + size,
        "foreign origin": host + b"Origin: https://evil.example\r\n" + kind + size,
        "null origin": host + b"Origin: null\r\n" + kind + size,
        "plain text": host + b"Content-Type: text/plain\r\n" + size,
        "form": host + b"Content-Type: multipart/form-data; boundary=a\r\n" + size,
        "no type": host + size,
        "gzip": host + kind + b"Content-Encoding: gzip\r\n" + size,
        "no length": host + kind,
        "negative length": host + kind + b"Content-Length: -1\r\n",
        "odd length": host + kind + b"Content-Length: 1e3\r\n",
        "two lengths": host + kind + size + b"Content-Length: 5\r\n",
        "long header": host + kind + size + b"X: " + b"a" * 40_000,
        "many headers": host + kind + size + b"".join(b"X-%d: 1\r\n" % n for n in range(3000)),
        "space in a name": host + kind + size + b"X A: 1\r\n",
        "no colon": host + kind + size + b"nonsense\r\n",
        "nul in a value": host + kind + size + b"X: \0\r\n",
        "odd coding": host + kind + b"Transfer-Encoding: cow\r\n",
        "two codings": host + kind + b"Transfer-Encoding: gzip, chunked\r\n",
    }
    for name, head in heads.items():
        yield Attack("headers", name, raw(start + head + b"\r\n" + body))
    allowed = {
        "both length and coding": host + kind + size + b"Transfer-Encoding: chunked\r\n",
        "folded": host + kind + size + b"X: a\r\n\tb: c\r\n",
        "forwarded": host + kind + size + b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example\r\n",
        "upgrade": host + kind + size + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        "websocket": host + kind + size + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n",
        "expect": host + kind + size + b"Expect: 100-continue\r\n",
        "authorization": host + kind + size + b"Authorization: \xff\r\n",
        "odd type": host + b"Content-Type: application/json; charset=\xff\r\n" + size,
    }
    for name, head in allowed.items():
        yield Attack("headers", name, raw(start + head + b"\r\n" + body), ANSWERED)


def paths_and_methods() -> Iterator[Attack]:
    for path in (
        "/",
        "/v1",
        "/v1/../../etc/passwd",
        "/v1/%2e%2e/%2e%2e/etc/passwd",
        "/v1/models/..%2f..%2fetc%2fpasswd",
        "/v1/models/%00",
        "//evil.example/v1",
        "/v1/models/" + "a" * 9000,
        "/v1/completions",
        "/docs",
        "/.env",
        "/v1/chat/completions/x",
        "/v1/models/%ff",
        "/?a=" + "b" * 5000,
    ):
        yield Attack("paths and methods", path[:40], raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()))
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW"):
        line = f"{method} {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        yield Attack("paths and methods", method, raw(line.encode()))
    for name, data in {
        "CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
        "old": b"GET /health\r\n\r\n",
        "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200,
        "noise": bytes(range(256)) * 4,
        "shell": b"() { :; }; echo\r\n\r\n",
        "spaces": b"GET  /health  HTTP/1.1\r\n\r\n",
        "lines": b"\r\n" * 500,
        "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
        "version": b"GET /health HTTP/9.9\r\nHost: evil.example\r\n\r\n",
        "bare newline": b"GET /metrics HTTP/1.1\nHost: evil.example\n\n",
    }.items():
        yield Attack("paths and methods", name, raw(data))


def slow() -> Iterator[Attack]:
    body, whole = packed(chat()), message(packed(chat()))
    chunked = whole.replace(b"Content-Length: %d\r\n" % len(body), b"Transfer-Encoding: chunked\r\n").removesuffix(body)

    def dripping(data: bytes) -> Callable[[socket.socket], None]:
        def send(sock: socket.socket) -> None:
            for at in range(30):
                sock.sendall(data[at : at + 1] or b"a")
                time.sleep(0.03)

        return send

    def endless(sock: socket.socket) -> None:
        sock.sendall(chunked)
        for _ in range(60):
            sock.sendall(b"1000\r\n" + b"a" * 4096 + b"\r\n")

    for at in (0, 1, 10, 60, 100, len(whole) - len(body) - 1):
        yield Attack("slow senders", f"headers stop at {at}", raw(whole[:at]))
    for at in (1, 20, len(body) - 1):
        yield Attack("slow senders", f"body stops at {at}", raw(whole[: len(whole) - len(body) + at]))
    yield Attack("slow senders", "headers drip", dripping(b"POST /v1/chat/completions HTTP/1.1\r\nX: "))
    yield Attack("slow senders", "a body drips", lambda sock: (sock.sendall(whole[: -len(body)]), dripping(body)(sock)))
    yield Attack("slow senders", "chunks without end", endless)
    for name, data in {
        "nothing": b"",
        "half a size": b"1",
        "odd size": b"zz\r\n",
        "negative size": b"-1\r\n",
        "no newline": b"5\r\nhellox",
        "large size": b"ffffffffffffffffffff\r\na",
        "size with more": b"5;" + b"a" * 20_000,
        "one": b"1\r\n{\r\n",
    }.items():
        yield Attack("slow senders", f"chunks: {name}", raw(chunked + data))
    yield Attack(
        "slow senders", "chunks that are right", raw(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)), ANSWERED
    )


def leaving() -> Iterator[Attack]:
    long = message(packed(chat(max_tokens=32, stream=True)))

    def leave(data: bytes, wait: float) -> Callable[[socket.socket], None]:
        def send(sock: socket.socket) -> None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))  # a reset, not a farewell
            sock.sendall(data)
            time.sleep(wait)
            sock.close()

        return send

    for at in (0, 30, len(long) // 2, len(long)):
        for wait in (0.0, 0.02, 0.1):
            yield Attack("clients that leave", f"after {at} bytes and {wait:g} s", leave(long[:at], wait), SILENT)
    for count in (2, 50):
        yield Attack(
            "clients that leave", f"{count} requests at once", raw(message(packed(chat(max_tokens=1))) * count), SILENT
        )
