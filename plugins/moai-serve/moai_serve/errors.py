"""What a client is told when a request is refused: a status, and OpenAI's error object."""

from __future__ import annotations

import logging
import traceback
from typing import Any

log = logging.getLogger("moai.serve")
KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ApiError(Exception):
    """A request that is refused, or an answer that failed.

    Args:
        status: of HTTP.
        message: one sentence that names the fix.
        code: the kind of it, for programs.
        param: the field of the request that it is about.
        headers: to send along.
    """

    def __init__(
        self,
        status: int,
        message: str,
        code: str | None = None,
        param: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.code, self.param = status, message, code, param
        self.headers = headers or {}

    def body(self) -> dict[str, Any]:
        """Return OpenAI's error object."""
        kind = KINDS.get(self.status, "server_error" if self.status >= 500 else "invalid_request_error")
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}


def refused(message: str, code: str | None = None, param: str | None = None, status: int = 400) -> ApiError:
    """Build the error of a request that the client has to change."""
    return ApiError(status, message, code, param)


def closing(error: ApiError) -> ApiError:
    """Let the connection end with this error: a body that was not read to its end cannot be told from what follows."""
    error.headers["connection"] = "close"
    return error


def internal(what: str, error: Exception) -> ApiError:
    """Log where a mistake of the server happened, and build what its client is told.

    The log has not the error's message, which may hold what a client wrote.

    Args:
        what: failed, for the log.
        error: as it was caught.
    """
    log.error("%s failed with %s\n%s", what, type(error).__name__, "".join(traceback.format_tb(error.__traceback__)))
    return ApiError(500, "the server failed at this request; its log says where", "internal_error")


def shorten(text: str, length: int = 80) -> str:
    """Return text of a client as one short printable line, for an error's message."""
    plain = "".join(char if char.isprintable() else " " for char in text[: length + 1])
    return plain if len(plain) <= length else plain[:length] + ".."
