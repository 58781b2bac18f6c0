"""Decode answers as a benchmark's ``generation_kwargs`` ask for, and stop them at its stop strings.

Knows: transformers' generation settings and stopping criteria.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers import StoppingCriteria

from moai.errors import RecipeError

log = logging.getLogger("moai")

SAMPLING = ("temperature", "top_p", "top_k")
PASSED = (*SAMPLING, "num_beams", "repetition_penalty")
_logged: set[str] = set()


@dataclass(frozen=True)
class Decoding:
    """Hold the settings by which one answer is decoded."""

    max_new_tokens: int = 128
    until: tuple[str, ...] = ()
    """The answer ends before the first of these."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Further arguments of transformers' ``generate``."""


def read_decoding(settings: Mapping[str, Any], max_new_tokens: int) -> Decoding:
    """Convert a benchmark's settings to ours; ``max_new_tokens`` where it has none.

    Temperature 0 means greedy, whatever ``do_sample`` says. Settings that no answer depends on here (how other models
    cut up images) are named in a warning, once.

    Raises:
        RecipeError: no room for a single token.
    """
    given = {name: value for name, value in settings.items() if value is not None}
    length = int(given.pop("max_new_tokens", given.pop("max_gen_toks", max_new_tokens)))
    if length < 1:
        raise RecipeError(f"the task asks for {length} new tokens; give at least 1 (--gen_kwargs max_new_tokens=16)")
    until = given.pop("until", ())
    until = (until,) if isinstance(until, str) else tuple(until)
    temperature = float(given.get("temperature", 1.0))
    sampled = temperature > 0 and bool(given.pop("do_sample", "temperature" in given))
    given.pop("do_sample", None)
    for name in sorted(set(given) - set(PASSED) - _logged):
        log.warning("the task's setting '%s' means nothing to this model; it is left out", name)
        _logged.add(name)
    kept = {name: given[name] for name in PASSED if name in given and (sampled or name not in SAMPLING)}
    return Decoding(length, tuple(stop for stop in until if stop), {"do_sample": sampled, **kept})


def cut(text: str, until: Sequence[str]) -> str:
    """Cut ``text`` before the first of the stop strings."""
    return text[: min((at for at in map(text.find, until) if at >= 0), default=len(text))]


class Stops(StoppingCriteria):
    """Stop a row when its answer holds a stop string, or when the host's context is full.

    transformers' own ``stop_strings`` also match across the end of the prompt: with a prompt that ends with a newline,
    an answer that begins with one would end at once on a blank line.
    """

    def __init__(self, tokenizer, until: Sequence[str], start: int, room: Tensor) -> None:
        """Start before anything is decoded.

        Args:
            tokenizer: of the host.
            until: stop strings.
            start: where answers begin, the same for all rows.
            room: ``(B,)`` tokens that each row's answer may have.
        """
        self.tokenizer, self.until, self.start, self.room = tokenizer, tuple(until), start, room
        # A token is a byte at least, but for a few that are no text: the tail surely holds a string that ends here.
        self.tail = max((len(stop.encode()) for stop in until), default=0) + 8

    def __call__(self, input_ids: Tensor, scores: Tensor, **kwargs) -> Tensor:
        """Mark the rows that are done, ``(B,)``; with beams, ``(B x beams,)``."""
        written = input_ids.shape[1] - self.start
        room = self.room.repeat_interleave(len(input_ids) // len(self.room))
        done = room.to(input_ids.device) <= written
        if self.until:
            tails = self.tokenizer.batch_decode(
                input_ids[:, max(self.start, input_ids.shape[1] - self.tail) :], skip_special_tokens=True
            )
            hit = [any(stop in tail for stop in self.until) for tail in tails]
            done = done | torch.tensor(hit, device=input_ids.device)
        return done
