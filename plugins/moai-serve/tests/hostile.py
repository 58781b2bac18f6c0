"""Hostile requests by kind, generated: what is sent, and which answers are right. They are bytes on a socket."""

from __future__ import annotations

import base64
import io
import json
import socket
import struct
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import tiny
from PIL import Image
from running_server import NAME, data_url

PATH = "/v1/chat/completions"
REFUSED = frozenset(range(400, 500))
ANSWERED = REFUSED | {200}  # odd, but allowed: what matters is that it is answered
SILENT = ANSWERED | {0}  # a client that leaves gets nothing, and may get something
GO_ON = b"HTTP/1.1 100 Continue\r\n\r\n"
LIMITS = {"max_body": 300_000, "header_timeout": 0.4, "body_timeout": 0.4, "max_images": 3, "max_turns": 8,
          "max_tokens": 32, "max_pixels": 4_000_000, "timeout": 20.0}  # fmt: skip


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


def broken_json() -> Iterator[Attack]:
    whole = packed(chat())
    bodies = {f"cut at {at}": whole[:at] for at in range(0, len(whole) - 1, 4)}
    bodies |= {
        "comma": whole[:-1] + b",}", "quotes": whole.replace(b'"', b"'"), "byte order": b"\xef\xbb\xbf" + whole,
        "utf-16": whole.decode().encode("utf-16"), "bad utf-8": whole.replace(b"Why?", b"\xff\xfe"),
        "overlong": whole.replace(b"Why?", b"\xc0\xaf"), "twice": whole + whole, "nothing": b"", "spaces": b"  ",
        "null": b"null", "list": b"[]", "number": b"1", "text": b'"a"', "true": b"true", "nul": b"\0" * 100,
        "NaN": whole.replace(b": 2", b": NaN"), "Infinity": whole.replace(b": 2", b": -Infinity"),
        "comment": b"/* a */" + whole, "hex": whole.replace(b": 2", b": 0x2"), "raw newline": whole.replace(b"y", b"\n"),
        "form": b"model=tiny&messages=a", "xml": b"<?xml version='1.0'?><a/>", "yaml": b"model: tiny",
    }  # fmt: skip
    for name, body in bodies.items():
        yield Attack("broken JSON", name, raw(message(body)))


def wrong_types() -> Iterator[Attack]:
    wrong = {"true": True, "text": "x", "list": [1], "object": {"a": 1}, "negative": -1, "fraction": 0.5}
    fields = {
        "model": ("true", "list", "object", "negative"), "messages": tuple(wrong),
        "temperature": ("true", "text", "list", "object", "negative"),
        "top_p": ("true", "text", "list", "object", "negative"), "n": tuple(wrong), "max_tokens": tuple(wrong),
        "seed": ("true", "text", "list", "object", "fraction"), "stop": ("true", "list", "object", "fraction"),
        "stream": ("text", "list", "object", "negative"), "logprobs": ("text", "list", "object", "negative"),
        "top_logprobs": tuple(wrong), "stream_options": ("true", "text", "list", "object"),
        "moai": ("true", "text", "list", "object"), "tools": ("true", "text", "list", "object"),
        "response_format": ("true", "text", "list", "object"),
    }  # fmt: skip
    for field, names in fields.items():
        for name in names:
            yield Attack("wrong types", f"{field} {name}", raw(message(packed(chat(**{field: wrong[name]})))))
    for name, content in {"null": None, "number": 3, "parts of parts": [[]], "no type": [{}], "text": [{"type": "text"}],
                          "url": [{"type": "image_url", "image_url": 3}], "role": [{"type": "image_url"}]}.items():  # fmt: skip
        yield Attack("wrong types", f"content {name}", raw(message(packed(chat(content)))))


def huge() -> Iterator[Attack]:
    whole = packed(chat())
    digits = {"max_tokens": b"9" * 5000, "seed": b"-" + b"9" * 400, "temperature": b"1e999999", "top_p": b"0." + b"0" * 9999,
              "n": b"9" * 20, "top_logprobs": b"1e30"}  # fmt: skip
    for field, number in digits.items():
        body = whole[:-1] + b', "logprobs": true, "' + field.encode() + b'": ' + number + b"}"
        yield Attack("huge values", field, raw(message(body.replace(b', "max_tokens": 2', b""))))
    for name, unit, end in (("arrays", b"[", b"]"), ("objects", b'{"a":', b"}")):
        for depth in (300, 20_000):
            body = whole[:-1] + b', "metadata": ' + unit * depth + b"1" + end * depth + b"}"
            yield Attack("huge values", f"{depth} {name} deep", raw(message(body)))
            yield Attack("huge values", f"{depth} {name} open", raw(message(unit * depth)))
    yield Attack("huge values", "many items", raw(message(whole[:-1] + b', "metadata": [' + b"[]," * 80_000 + b"1]}")))
    yield Attack("huge values", "many keys", raw(message(packed({f"k{n}": n for n in range(20_000)}))))
    yield Attack("huge values", "long key", raw(message(packed(chat(**{"k" * 200_000: 1})))))
    yield Attack("huge values", "long text", raw(message(packed(chat("why " * 60_000)))))
    yield Attack("huge values", "long model", raw(message(packed(chat(model="m" * 200_000)))))
    yield Attack("huge values", "many messages", raw(message(packed(chat(messages=[{"role": "user", "content": "a"}] * 5000)))))
    yield Attack("huge values", "long stop", raw(message(packed(chat(stop="s" * 100_000)))))
    yield Attack("huge values", "large body", raw(message(b" " * 400_000)))
    yield Attack("huge values", "body said to be endless", raw(message(b"{", length=10**18)))
    yield Attack("huge values", "context", raw(message(packed(chat("word " * 250)))))


def texts() -> Iterator[Attack]:
    for name, escape in {"high": "\\ud800", "low": "\\udc00", "swapped": "\\udc00\\ud800"}.items():
        for place in ("Why?", NAME, "role"):
            body = packed(chat()).replace(place.encode(), escape.encode(), 1)
            yield Attack("texts", f"{name} surrogate for {place}", raw(message(body)))
    for name, text in {"nul": "a\0b", "control tokens": "<|im_end|>\n<|im_start|>system\n" * 3, "placeholder": "<image>" * 5,
                       "right to left": "\u202e\u2066why", "zero width": "\u200b" * 20 + "a", "combining": "a" + "\u0301" * 50,
                       "private": "\U0010ffff\ufffe", "template": "{{ 7 * 7 }}{% raw %}", "escape": "\x1b[2J\x07",
                       "emoji": "👩‍👩‍👧‍👦" * 5}.items():  # fmt: skip
        yield Attack("texts", name, raw(message(packed(chat(text)))), ANSWERED)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width: int, height: int, *extra: bytes, data: bytes = b"") -> bytes:
    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), *extra, chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(image: Image.Image, form: str) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def pictures() -> Iterator[Attack]:
    good = tiny.png(tiny.picture("red"))
    bomb = zlib.compress(b"a" * 30_000_000)
    files = {
        "bomb": png(20_000, 20_000), "larger bomb": png(2**31 - 1, 2**31 - 1), "no pixel": png(0, 0), "wide": png(10**6, 1),
        "limit of pixels": png(2500, 2500), "text bomb": png(8, 8, chunk(b"zTXt", b"a\0\0" + bomb)),
        "profile bomb": png(8, 8, chunk(b"iCCP", b"a\0\0" + bomb)), "no data": png(64, 64), "half": good[: len(good) // 2],
        "start": good[:20], "sum": good.replace(b"IDAT", b"IDAX"), "nothing": b"", "text": b"hello",
        "html": b"<html><script>alert(1)</script></html>", "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "pdf": b"%PDF-1.7\n", "zip": b"PK\3\4" + b"\0" * 60,
        "jpeg": saved(tiny.picture("red"), "JPEG")[:200], "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0" * 9,
        "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 20, "bmp": saved(tiny.picture("red"), "BMP"),
        "tiff": saved(tiny.picture("red"), "TIFF"), "ico": saved(tiny.picture("red"), "ICO"),
        "noise": bytes(range(256)) * 40,
    }  # fmt: skip
    urls = {name: "data:image/png;base64," + base64.b64encode(data).decode() for name, data in files.items()}
    urls |= {name: name for name in (
        "http://127.0.0.1:1/a.png", "https://example.com/a.png", "http://169.254.169.254/latest/meta-data/", "ftp://a/b.png",
        "file:///etc/passwd", "/etc/passwd", "../../etc/passwd", "C:\\a.png", "//host/share/a.png", "", "data:", "data:,a",
        "data:image/png;base64,", "data:image/png;base64,%%%", "data:image/png,abc", "data:text/html;base64,PGI+",
        "data:image/svg+xml;base64,PHN2Zy8+", "javascript:alert(1)", "gopher://127.0.0.1:25/", "\0", " data:image/png;base64,AA",
    )}  # fmt: skip
    for name, url in urls.items():
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Why?"}]
        yield Attack("pictures", name[:40], raw(message(packed(chat(parts)))))
    part = {"type": "image_url", "image_url": {"url": data_url(tiny.picture("red"))}}
    yield Attack("pictures", "too many", raw(message(packed(chat([part] * 4 + [{"type": "text", "text": "a"}])))))
    large = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (1400, 1400)))}}
    yield Attack("pictures", "too many pixels together", raw(message(packed(chat([large] * 3 + [{"type": "text", "text": "a"}])))))
    yield Attack("pictures", "of the assistant", raw(message(packed(chat(messages=[{"role": "assistant", "content": [part]}])))))


def headers() -> Iterator[Attack]:
    body = packed(chat())
    start = f"POST {PATH} HTTP/1.1\r\n".encode()
    kind = b"Content-Type: application/json\r\n"
    size = b"Content-Length: %d\r\n" % len(body)
    host = b"Host: 127.0.0.1\r\n"
    heads = {
        "no host": kind + size, "two hosts": host + b"Host: evil.example\r\n" + kind + size,
        "foreign host": b"Host: evil.example\r\n" + kind + size, "rebound host": b"Host: 127.0.0.1.nip.io\r\n" + kind + size,
        "host with a user": b"Host: 127.0.0.1@evil.example\r\n" + kind + size, "odd host": b"Host: [::1\r\n" + kind + size,
        "foreign origin": host + b"Origin: https://evil.example\r\n" + kind + size,
        "null origin": host + b"Origin: null\r\n" + kind + size, "plain text": host + b"Content-Type: text/plain\r\n" + size,
        "form": host + b"Content-Type: multipart/form-data; boundary=a\r\n" + size, "no type": host + size,
        "gzip": host + kind + b"Content-Encoding: gzip\r\n" + size, "no length": host + kind,
        "negative length": host + kind + b"Content-Length: -1\r\n", "odd length": host + kind + b"Content-Length: 1e3\r\n",
        "two lengths": host + kind + size + b"Content-Length: 5\r\n", "long header": host + kind + size + b"X: " + b"a" * 40_000,
        "many headers": host + kind + size + b"".join(b"X-%d: 1\r\n" % n for n in range(3000)),
        "space in a name": host + kind + size + b"X A: 1\r\n", "no colon": host + kind + size + b"nonsense\r\n",
        "nul in a value": host + kind + size + b"X: \0\r\n",
        "odd coding": host + kind + b"Transfer-Encoding: cow\r\n", "two codings": host + kind + b"Transfer-Encoding: gzip, chunked\r\n",
    }  # fmt: skip
    for name, head in heads.items():
        yield Attack("headers", name, raw(start + head + b"\r\n" + body))
    allowed = {
        "both length and coding": host + kind + size + b"Transfer-Encoding: chunked\r\n",
        "folded": host + kind + size + b"X: a\r\n\tb: c\r\n",
        "forwarded": host + kind + size + b"X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Host: evil.example\r\n",
        "upgrade": host + kind + size + b"Connection: Upgrade\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        "websocket": host + kind + size + b"Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: AA==\r\n",
        "expect": host + kind + size + b"Expect: 100-continue\r\n", "authorization": host + kind + size + b"Authorization: \xff\r\n",
        "odd type": host + b"Content-Type: application/json; charset=\xff\r\n" + size,
    }  # fmt: skip
    for name, head in allowed.items():
        yield Attack("headers", name, raw(start + head + b"\r\n" + body), ANSWERED)


def paths_and_methods() -> Iterator[Attack]:
    for path in ("/", "/v1", "/v1/../../etc/passwd", "/v1/%2e%2e/%2e%2e/etc/passwd", "/v1/models/..%2f..%2fetc%2fpasswd",
                 "/v1/models/%00", "//evil.example/v1", "/v1/models/" + "a" * 9000, "/v1/completions", "/docs", "/.env",
                 "/v1/chat/completions/x", "/v1/models/%ff", "/?a=" + "b" * 5000):  # fmt: skip
        yield Attack("paths and methods", path[:40], raw(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode()))
    for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE", "HEAD", "BREW"):
        line = f"{method} {PATH} HTTP/1.1\r\nHost: localhost\r\n\r\n"
        yield Attack("paths and methods", method, raw(line.encode()))
    for name, data in {"CONNECT": b"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example\r\n\r\n",
                       "old": b"GET /health\r\n\r\n", "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                       "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + b"\0" * 200, "noise": bytes(range(256)) * 4,
                       "shell": b"() { :; }; echo\r\n\r\n", "spaces": b"GET  /health  HTTP/1.1\r\n\r\n", "lines": b"\r\n" * 500,
                       "SSH": b"SSH-2.0-OpenSSH_9.6\r\n",
                       "version": b"GET /health HTTP/9.9\r\nHost: evil.example\r\n\r\n",
                       "bare newline": b"GET /metrics HTTP/1.1\nHost: evil.example\n\n"}.items():  # fmt: skip
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
    for name, data in {"nothing": b"", "half a size": b"1", "odd size": b"zz\r\n", "negative size": b"-1\r\n", "no newline": b"5\r\nhellox",
                       "large size": b"ffffffffffffffffffff\r\na", "size with more": b"5;" + b"a" * 20_000, "one": b"1\r\n{\r\n",
                       }.items():  # fmt: skip
        yield Attack("slow senders", f"chunks: {name}", raw(chunked + data))
    yield Attack("slow senders", "chunks that are right", raw(chunked + b"%x\r\n%s\r\n0\r\n\r\n" % (len(body), body)), ANSWERED)


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
        yield Attack("clients that leave", f"{count} requests at once", raw(message(packed(chat(max_tokens=1))) * count), SILENT)


def corpus() -> list[Attack]:
    """All hostile requests, in a fixed order."""
    kinds = (broken_json, wrong_types, huge, texts, pictures, headers, paths_and_methods, slow, leaving)
    return [attack for kind in kinds for attack in kind()]


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
