"""Hostile pictures: bombs, damaged files, other formats, addresses and paths."""

from __future__ import annotations

import base64
import io
import struct
import zlib
from collections.abc import Iterator

import tiny
from hostile_request import Attack, chat, message, packed, raw
from PIL import Image
from running_server import data_url


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


URLS = (
    "http://127.0.0.1:1/a.png",
    "https://example.com/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "ftp://a/b.png",
    "file:///etc/passwd",
    "/etc/passwd",
    "../../etc/passwd",
    "C:\\a.png",
    "//host/share/a.png",
    "",
    "data:",
    "data:,a",
    "data:image/png;base64,",
    "data:image/png;base64,%%%",
    "data:image/png,abc",
    "data:text/html;base64,PGI+",
    "data:image/svg+xml;base64,PHN2Zy8+",
    "javascript:alert(1)",
    "gopher://127.0.0.1:25/",
    "\0",
    " data:image/png;base64,AA",
)


def files() -> dict[str, bytes]:
    """What is sent as a PNG file."""
    good = tiny.png(tiny.picture("red"))
    bomb = zlib.compress(b"a" * 30_000_000)
    return {
        "bomb": png(20_000, 20_000),
        "larger bomb": png(2**31 - 1, 2**31 - 1),
        "no pixel": png(0, 0),
        "wide": png(10**6, 1),
        "limit of pixels": png(2500, 2500),
        "text bomb": png(8, 8, chunk(b"zTXt", b"a\0\0" + bomb)),
        "profile bomb": png(8, 8, chunk(b"iCCP", b"a\0\0" + bomb)),
        "no data": png(64, 64),
        "half": good[: len(good) // 2],
        "start": good[:20],
        "sum": good.replace(b"IDAT", b"IDAX"),
        "nothing": b"",
        "text": b"hello",
        "html": b"<html><script>alert(1)</script></html>",
        "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        "pdf": b"%PDF-1.7\n",
        "zip": b"PK\3\4" + b"\0" * 60,
        "jpeg": saved(tiny.picture("red"), "JPEG")[:200],
        "gif": b"GIF89a" + struct.pack("<HH", 65535, 65535) + b"\0" * 9,
        "webp": b"RIFF\xff\xff\xff\xffWEBPVP8 " + b"\0" * 20,
        "bmp": saved(tiny.picture("red"), "BMP"),
        "tiff": saved(tiny.picture("red"), "TIFF"),
        "ico": saved(tiny.picture("red"), "ICO"),
        "noise": bytes(range(256)) * 40,
    }


def pictures() -> Iterator[Attack]:
    urls = {name: "data:image/png;base64," + base64.b64encode(data).decode() for name, data in files().items()}
    urls |= {url: url for url in URLS}
    for name, url in urls.items():
        parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": "Why?"}]
        yield Attack("pictures", name[:40], raw(message(packed(chat(parts)))))
    part = {"type": "image_url", "image_url": {"url": data_url(tiny.picture("red"))}}
    yield Attack("pictures", "too many", raw(message(packed(chat([part] * 4 + [{"type": "text", "text": "a"}])))))
    large = {"type": "image_url", "image_url": {"url": data_url(Image.new("RGB", (1400, 1400)))}}
    yield Attack(
        "pictures",
        "too many pixels together",
        raw(message(packed(chat([large] * 3 + [{"type": "text", "text": "a"}])))),
    )
    yield Attack(
        "pictures", "of the assistant", raw(message(packed(chat(messages=[{"role": "assistant", "content": [part]}]))))
    )
