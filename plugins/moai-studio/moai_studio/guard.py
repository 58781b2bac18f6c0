"""Let in only requests of the studio's own page: checks of host, origin and key, and headers that confine the page.

Knows: ASGI. A page of another site must neither read nor start anything here: by DNS rebinding it would come with
another Host, by a form or fetch with another Origin, and what it may not read needs headers that only fetch can set,
which a browser allows across sites only after asking, and here it is never allowed.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterable
from typing import Any

from starlette.datastructures import Headers, MutableHeaders

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(), microphone=(), geolocation=()",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


class Guard:
    """Wrap an application; refused requests get 403 and a sentence."""

    def __init__(self, app: Any, hosts: Iterable[str], key: str | None = None) -> None:
        """Build the guard.

        Args:
            app: an ASGI application.
            hosts: accepted values of the Host header, without port or with it; with a key, which no other page knows,
                any is.
            key: that requests have to show in ``X-Moai-Key``; None: none is asked for.
        """
        self.app, self.hosts, self.key = app, frozenset(hosts), key

    async def __call__(self, scope: dict[str, Any], receive: Any, send: Any) -> None:
        """Check one request and pass it on."""
        if scope["type"] != "http":
            if scope["type"] == "lifespan":
                await self.app(scope, receive, send)
            return  # a websocket: there are none, and uvicorn closes it
        headers, api = Headers(scope=scope), scope["path"].startswith("/api/")

        async def sending(message: dict[str, Any]) -> None:
            if message["type"] == "http.response.start":
                out = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    out[name] = value
                out.setdefault("cache-control", "no-store" if api else "no-cache")
            await send(message)

        reason = self._refusal(headers, api)
        if reason is None:
            await self.app(scope, receive, sending)
        else:
            await _refuse(sending, reason)

    def _refusal(self, headers: Headers, api: bool) -> str | None:
        host = headers.get("host", "").lower()
        if self.key is None and host not in self.hosts and _without_port(host) not in self.hosts:
            return "this address is not the studio's own; open the one that moai studio printed"
        origin = headers.get("origin")
        if origin is not None and origin.lower() != f"http://{host}":
            return "another web page may not use the studio"
        if api and headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
            return "another web page may not use the studio"
        given = headers.get("x-moai-key", "").encode("utf-8", "replace")
        if api and self.key is not None and not secrets.compare_digest(given, self.key.encode()):
            return "the key is missing or wrong; open the whole address that moai studio printed"
        return None


def _without_port(host: str) -> str:
    name, colon, port = host.rpartition(":")
    return name if colon and port.isdigit() else host


async def _refuse(send: Any, reason: str) -> None:
    body = json.dumps({"error": reason}).encode()
    head = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 403, "headers": head})
    await send({"type": "http.response.body", "body": body})
