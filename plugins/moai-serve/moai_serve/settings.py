"""Limits of a server: how much one request may ask for, and how much waits at once."""

from __future__ import annotations

from dataclasses import dataclass, fields

from moai.errors import MoaiError

MEBIBYTE = 1024 * 1024


@dataclass(frozen=True)
class Settings:
    """Hold what a server allows; each has a default that suits two cores.

    Attributes:
        name: of the model, as requests give it; left out, the run folder's name.
        api_key: what clients have to send; None asks for none.
        any_host: answer whatever the header ``Host`` names, without a key.
        batch_size: answers that are generated together.
        answering: batches that are generated at the same time.
        max_waiting: answers that may wait before a request is refused with 429.
        max_body: bytes of a request's body.
        max_pixels: pixels of all pictures of a request together.
        max_images: pictures of a request.
        max_turns: messages of a request.
        max_tokens: tokens of an answer.
        max_choices: answers to one request, ``n``.
        max_memory: bytes that the bodies and pictures of all requests may take together.
        max_connections: open connections.
        timeout: seconds from a whole request to its last token.
        body_timeout: seconds that a body may take to arrive.
        header_timeout: seconds that the headers of a request may take to arrive.

    Raises:
        MoaiError: a limit that is not positive, or a ``batch_size`` below ``max_choices``.
    """

    name: str = ""
    api_key: str | None = None
    any_host: bool = False
    batch_size: int = 16
    answering: int = 1
    max_waiting: int = 256
    max_body: int = 20 * MEBIBYTE
    max_pixels: int = 25_000_000
    max_images: int = 8
    max_turns: int = 64
    max_tokens: int = 256
    max_choices: int = 8
    max_memory: int = 1024 * MEBIBYTE
    max_connections: int = 512
    timeout: float = 120.0
    body_timeout: float = 30.0
    header_timeout: float = 10.0

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, (int, float)) and not isinstance(value, bool) and not value > 0:
                raise MoaiError(f"{field.name} is {value}, and has to be above 0")
        if self.max_choices > self.batch_size:
            raise MoaiError(
                f"max_choices is {self.max_choices} and batch_size {self.batch_size}; "
                "the answers to one request are generated together, so raise batch_size or lower max_choices"
            )
        if self.api_key is not None and not self.api_key.strip():
            raise MoaiError("the API key is empty; give one of 16 characters or more, or none at all")
