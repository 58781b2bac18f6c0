"""Perceive pictures and answer questions about them, reporting each step to the page.

Knows: runs, sessions and works.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import TextStreamer

from moai import Conversation, Perception, verbalize
from moai.errors import PromptError
from moai_studio.editing import Edited, derive, edit
from moai_studio.findings import fact_id, list_experts, list_findings
from moai_studio.messages import Ask, Edit, conversation
from moai_studio.runs import Opened
from moai_studio.sessions import Picture, Session
from moai_studio.work import Work

if TYPE_CHECKING:
    from moai import Augmented

log = logging.getLogger("moai")


class Streamed(TextStreamer):
    """Send an answer's text to the page as it is generated."""

    def __init__(self, tokenizer: Any, work: Work) -> None:
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self.work, self.first = work, 0.0

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        """Send a piece of text; a stopped work ends the generation here."""
        self.first = self.first or time.monotonic()
        self.work.emit("token", text=text)


def perceive(opened: Opened, picture: Picture, work: Work, again: bool = False) -> Perception:
    """Perceive a picture, or find what was perceived; reports ``experts``, ``expert`` and ``perceived``.

    Args:
        opened: the run whose experts look.
        picture: which keeps what was found.
        work: to report to.
        again: perceive anew, as after an expert was skipped.
    """
    with work.holding(picture.lock):
        found = None if again else picture.perceptions.get(opened.name)
        if found is None:
            started: dict[str, float] = {}

            def begin(expert: str) -> None:
                started[expert] = time.monotonic()
                work.report("expert", picture=picture.id, name=expert, state="started", seconds=None)

            def end(expert: str) -> None:
                took = round(time.monotonic() - started[expert], 2)
                work.report("expert", picture=picture.id, name=expert, state="finished", seconds=took)

            work.emit("experts", picture=picture.id, names=[e.name for e in opened.perceiver.experts])
            [found] = opened.perceiver.perceive([picture.image], watch=work.watch(begin, end))
            work.check()
            picture.perceptions[opened.name] = found
    return found


def describe(opened: Opened, found: Edited) -> dict[str, Any]:
    """Describe the perception of one picture to the page."""
    if opened.run is None:
        words, left_out = verbalize(found.perception), []
    else:
        written = opened.run.processor.verbalize(found.perception)
        words, left_out = written.text, [fact_id(*one) for one in written.dropped]
    return {
        "findings": list_findings(found.perception, found.origins(), left_out),
        "experts": list_experts(found.perception),
        "words": words,
    }


def change(opened: Opened, picture: Picture, perception: Perception, edits: Sequence[Edit], again: bool) -> Edited:
    """Apply edits to what was perceived in a picture; ``again`` lets derived experts run again on them."""
    changed = edit(perception, edits)
    return derive(opened.perceiver, picture.image, changed, perception) if edits and again else changed


def answerer(opened: Opened) -> Augmented:
    """Return the run that answers.

    Raises:
        PromptError: there are experts alone.
    """
    if opened.run is None:
        raise PromptError("experts alone answer nothing; choose a run to ask")
    return opened.run


def prepare(opened: Opened, session: Session, ask: Ask, work: Work) -> tuple[Conversation, list[Perception], list[str]]:
    """Build a request's conversation and the perceptions of its pictures, edited where they are."""
    run = answerer(opened)
    asked, shown = conversation(ask, session)
    run.processor.encode(asked)  # a prompt that is too long should cost nothing
    given = []
    for name in shown:
        picture = session.picture(name)
        found = perceive(opened, picture, work)
        given.append(change(opened, picture, found, ask.edits.get(name, ()), ask.derive).perception)
    return asked, given, shown


def answer(opened: Opened, session: Session, ask: Ask, work: Work) -> None:
    """Answer a conversation; reports ``token``, ``answer`` and then ``measured``."""
    run, begun = answerer(opened), time.monotonic()
    asked, given, _ = prepare(opened, session, ask, work)
    ready = time.monotonic()
    with work.holding(opened.lock):
        held = time.monotonic()
        streamed = Streamed(run.processor.tokenizer, work)
        [text] = run.answer([asked], [given], ask.max_new_tokens, streamer=streamed)
        ended = time.monotonic()
        seconds = {
            "perception": ready - begun,
            "waiting": held - ready,
            "first": (streamed.first or ended) - held,
            "answer": ended - held,
        }
        work.emit("answer", text=text, seconds={name: round(value, 3) for name, value in seconds.items()})
        others = [one for one in dict.fromkeys((text, ask.instead or "")) if one.strip()]
        scores = run.loglikelihood([asked] * len(others), [given] * len(others), others) if others else []
    probability = {one: math.exp(score) for one, score in zip(others, scores, strict=True)}
    work.emit(
        "measured",
        probability=probability.get(text),
        instead=probability.get(ask.instead or ""),
        tokens=run.token_counts([asked], [given])[0],
    )
