"""What is sent back: OpenAI's chat completion, whole or in chunks, with what was perceived in the field ``moai``."""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

from moai_serve.asking import Asked
from moai_serve.choice import BROKEN, TokenScore
from moai_serve.errors import ApiError
from moai_serve.job import Finished, Perceived, Report


@dataclass
class Completion:
    """Put the reports of one request into OpenAI's form.

    Args:
        asked: what was asked.
        model: the name that the client knows.
    """

    asked: Asked
    model: str
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(12)}")
    created: int = field(default_factory=lambda: int(time.time()))
    perceived: Perceived | None = None
    tokens: int = 0

    async def whole(self, reports: AsyncIterator[Report]) -> dict[str, Any]:
        """Collect all reports into one completion.

        Raises:
            ApiError: the answer failed.
        """
        finished: list[Finished] = []
        async for report in reports:
            if isinstance(report, ApiError):
                raise report
            self._note(report)
            if isinstance(report, Finished):
                finished.append(report)
        choices = [
            {
                "index": one.choice,
                "message": {"role": "assistant", "content": one.text, "refusal": None},
                "logprobs": self._logprobs(one.scores),
                "finish_reason": one.reason,
            }
            for one in sorted(finished, key=lambda one: one.choice)
        ]
        return {**self._head("chat.completion"), "choices": choices, "usage": self.usage(), "moai": self.extension()}

    async def chunks(self, reports: AsyncIterator[Report]) -> AsyncIterator[bytes]:
        """Turn reports into server-sent events as they come; an error is an event, too."""
        async for report in reports:
            if isinstance(report, ApiError):
                yield _event(report.body())
                return
            self._note(report)
            if isinstance(report, Perceived):
                start = [self._delta(n, {"role": "assistant", "content": "", "refusal": None})
                         for n in range(self.asked.choices)]  # fmt: skip
                yield _event({**self._chunk(start), "moai": self.extension()})
                continue
            if report.text or report.scores:
                yield _event(self._chunk([self._delta(report.choice, {"content": report.text}, report.scores)]))
            if isinstance(report, Finished):
                yield _event(self._chunk([self._delta(report.choice, {}, reason=report.reason)]))
        if self.asked.usage:
            yield _event({**self._chunk([]), "usage": self.usage()})
        yield b"data: [DONE]\n\n"

    def usage(self) -> dict[str, Any]:
        """Count tokens as OpenAI does: the host's sequence with its images, and all that was generated."""
        prompt = 0 if self.perceived is None else self.perceived.counts["prompt"]
        return {"prompt_tokens": prompt, "completion_tokens": self.tokens, "total_tokens": prompt + self.tokens}

    def extension(self) -> dict[str, Any]:
        """Return what was perceived, in which words, what failed, and what the prompt costs."""
        if self.perceived is None:
            return {}
        found = self.perceived.perception.to_dict()
        if not self.asked.masks:
            found["segments"] = [{**segment, "mask": None} for segment in found["segments"]]
        return {
            "perception": found,
            "verbalized": self.perceived.verbalized,
            "failures": found.pop("failures"),
            "tokens": dict(self.perceived.counts),
        }

    def _note(self, report: Report) -> None:
        if isinstance(report, Perceived):
            self.perceived = report
        elif isinstance(report, Finished):
            self.tokens += report.tokens

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}

    def _chunk(self, choices: list[dict[str, Any]]) -> dict[str, Any]:
        usage = {"usage": None} if self.asked.usage else {}
        return {**self._head("chat.completion.chunk"), "choices": choices, **usage}

    def _delta(
        self, choice: int, delta: dict[str, Any], scores: tuple[TokenScore, ...] = (), reason: str | None = None
    ) -> dict[str, Any]:
        logprobs = self._logprobs(scores) if scores else None
        return {"index": choice, "delta": delta, "logprobs": logprobs, "finish_reason": reason}

    def _logprobs(self, scores: tuple[TokenScore, ...]) -> dict[str, Any] | None:
        if not self.asked.sampling.logprobs:
            return None
        content = [
            {**_token(one.token, one.logprob), "top_logprobs": [_token(*other) for other in one.top]} for one in scores
        ]
        return {"content": content, "refusal": None}


def _token(text: str, logprob: float) -> dict[str, Any]:
    known = None if BROKEN in text else list(text.encode())
    return {"token": text, "logprob": max(logprob, -9999.0), "bytes": known}


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + to_json(value) + b"\n\n"


def to_json(value: Any) -> bytes:
    """Write JSON in UTF-8; what UTF-8 cannot hold, half a character that an expert read, becomes a question mark."""
    return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
