"""Read a request's body within limits of size, time, and the memory that all requests have together."""

from __future__ import annotations

import asyncio
import threading

from starlette.requests import ClientDisconnect, Request

from moai_serve.errors import ApiError, closing, refused
from moai_serve.settings import Settings


class Memory:
    """Count the bytes that all requests hold, and refuse what would exceed the limit."""

    def __init__(self, limit: int) -> None:
        self.limit, self.held = limit, 0
        self._lock = threading.Lock()

    def add(self, size: int) -> None:
        """Count ``size`` more bytes.

        Raises:
            ApiError: 429, when they would be too many.
        """
        with self._lock:
            if self.held + size > self.limit:
                raise ApiError(
                    429, "the requests that are open fill the memory that they may take; ask again in 5 s",
                    "overloaded", headers={"retry-after": "5"},
                )  # fmt: skip
            self.held += size

    def release(self, size: int) -> None:
        """Count ``size`` bytes less."""
        with self._lock:
            self.held -= size


class Held:
    """Hold the memory of one request, until ``release``."""

    def __init__(self, memory: Memory) -> None:
        self.memory, self.size = memory, 0

    def add(self, size: int) -> None:
        """Hold ``size`` more bytes; errors as :meth:`Memory.add`."""
        self.memory.add(size)
        self.size += size

    def release(self, size: int | None = None) -> None:
        """Give ``size`` bytes back; left out, all that are held."""
        size = self.size if size is None else size
        self.memory.release(size)
        self.size -= size


async def read_body(request: Request, settings: Settings, held: Held) -> bytes:
    """Read a JSON body.

    Args:
        request: whose body was not read yet.
        settings: with its limits.
        held: counts the body's bytes.

    Raises:
        ApiError: another type than JSON, too large, or too slow.
    """
    headers = request.headers
    kind = headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise closing(refused("send JSON, with the header Content-Type: application/json", "invalid_content_type",
                              status=415))  # fmt: skip
    if headers.get("content-encoding", "identity").lower() != "identity":
        raise closing(refused("send the body uncompressed, without Content-Encoding", "invalid_content_encoding",
                              status=415))  # fmt: skip
    length = headers.get("content-length", "")
    if length.isdigit() and int(length) > settings.max_body:
        raise closing(_too_large(settings))
    parts, size = [], 0
    try:
        async with asyncio.timeout(settings.body_timeout):
            async for part in request.stream():
                size += len(part)
                if size > settings.max_body:
                    raise closing(_too_large(settings))
                held.add(len(part))
                parts.append(part)
    except TimeoutError:
        raise closing(ApiError(408, f"the body took longer than {settings.body_timeout:g} s; send it faster",
                               "body_too_slow")) from None  # fmt: skip
    except ClientDisconnect:
        raise ApiError(499, "the client left before the body's end", "client_left") from None
    except ApiError as error:
        raise closing(error) from None
    return b"".join(parts)


def _too_large(settings: Settings) -> ApiError:
    return refused(f"the body is larger than the limit of {settings.max_body:,} bytes; send smaller pictures",
                   "body_too_large", status=413)  # fmt: skip
