"""Who may ask: the API key, and the headers that tell a program of this machine from another web page's script."""

from __future__ import annotations

import hmac
import ipaddress
from urllib.parse import urlsplit

from starlette.datastructures import Headers

from moai_serve.errors import ApiError, closing
from moai_serve.settings import Settings

HEADER_BYTES = 16 * 1024


def check_headers(headers: Headers) -> None:
    """Refuse headers that are too long together; uvicorn limits only those that come in several pieces.

    Raises:
        ApiError: 431.
    """
    size = sum(len(name) + len(value) + 4 for name, value in headers.raw)
    if size > HEADER_BYTES:
        raise closing(ApiError(431, f"the headers have {size:,} bytes and the limit is {HEADER_BYTES:,}; send fewer",
                               "headers_too_large"))  # fmt: skip


def check_access(headers: Headers, settings: Settings, open_to_all: bool = False) -> None:
    """Refuse who may not ask.

    Args:
        headers: of the request.
        settings: with the key, if any. Without one only requests to this machine by its own name are answered, so
            that no web page in a browser here reaches the server under a name of its own.
        open_to_all: needs no key.

    Raises:
        ApiError: 401 without the right key; 403 for another name of this machine, or a script of another site.
    """
    if settings.api_key is not None:
        if not open_to_all:
            _check_key(headers.get("authorization", ""), settings.api_key)
        return
    if not settings.any_host:
        if not is_loopback(_name(f"//{headers.get('host', '')}")):
            raise ApiError(403, "this server answers to 127.0.0.1 and localhost alone; ask it by one of them, "
                           "or start it with --api-key", "forbidden_host")  # fmt: skip
        if "origin" in headers and not is_loopback(_name(headers["origin"])):
            raise ApiError(403, "this server does not answer scripts of other web pages", "forbidden_origin")


def is_loopback(name: str) -> bool:
    """Return whether a host name is this machine's own."""
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def _name(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _check_key(authorization: str, key: str) -> None:
    scheme, _, given = authorization.partition(" ")
    same = hmac.compare_digest(given.strip().encode("utf-8", "replace"), key.encode())
    if scheme.lower() != "bearer" or not same:
        raise ApiError(401, "the API key is missing or wrong; send it as Authorization: Bearer KEY",
                       "invalid_api_key", headers={"www-authenticate": "Bearer"})  # fmt: skip
