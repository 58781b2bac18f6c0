"""A studio with a tiny run, and a visitor who asks it without a browser."""

from __future__ import annotations

import functools
import json
import threading

import tiny
from moai_studio.application import build_application
from moai_studio.runs import Opened, Runs
from moai_studio.sessions import Sessions
from starlette.testclient import TestClient

from moai import Augmented, Expert, Perceiver, Perception, Relation, TextLine

WAIT = 20.0  # seconds after which a test that hangs fails instead
HOME = "http://127.0.0.1:7860"


class Print(Expert):
    """Reads the same word in every picture."""

    name, role, version = "tiny-print", "ocr", "1"

    def perceive(self, images, context):
        corners = ((0.1, 0.8), (0.4, 0.8), (0.4, 0.9), (0.1, 0.9))
        return [Perception(texts=(TextLine("<b>EXIT</b>", 0.8, corners),)) for _ in images]


class Derived(Expert):
    """Counts things, and relates the first to itself: what follows from others' findings."""

    name, role, version = "tiny-count", "count", "1"
    requires = ("panoptic", "open_world")

    def perceive(self, images, context):
        return [self.count(one) for one in context]

    def count(self, found: Perception) -> Perception:
        names = [name for name, _ in found.boxes]
        pairs = tuple(Relation(name, "near", name, 0.5, box, box) for name, box in found.boxes[:1])
        return Perception(relations=pairs, notes={"count": (f"{len(names)} things: {', '.join(names) or 'none'}.",)})


class Slow(Expert):
    """Waits until it is let go."""

    name, role, version = "tiny-slow", "open_world", "1"
    thread_safe = True

    def __init__(self):
        super().__init__()
        self.busy, self.go = threading.Event(), threading.Event()

    def perceive(self, images, context):
        self.busy.set()
        assert self.go.wait(WAIT)
        return [Perception() for _ in images]


@functools.cache
def augmented() -> Augmented:
    """A tiny run whose experts find a thing, print, and what follows; nothing is cached."""
    model, processor = tiny.made(perception={"experts": ["tiny-panoptic"]})
    return Augmented(model.fix_adapters(), processor, Perceiver(["tiny-panoptic", Print(), Derived()]))


class AtHand(Runs):
    """One run, in memory; and experts alone."""

    def __init__(self, run: Augmented, perceiver: Perceiver | None = None) -> None:
        super().__init__([])
        self.run, self.perceiver = run, perceiver or run.perceiver

    def open(self, name: str) -> Opened:
        if name == "0" and "0" not in self._opened:
            self._opened[name] = Opened(name, self.perceiver, self.run)
        return self._opened[name] if name == "0" else super().open(name)


class Visitor:
    """Asks a studio, in a session of its own."""

    def __init__(self, app, headers: dict[str, str] | None = None) -> None:
        self.client = TestClient(app, base_url=HOME, headers=headers or {})
        self.session = self.client.post("/api/session").json()["session"]
        self.client.headers["X-Moai-Session"] = self.session

    def add(self, image) -> str:
        """Hold a picture and return its id."""
        answer = self.client.post("/api/pictures", content=tiny.png(image))
        assert answer.status_code == 200, answer.text
        return answer.json()["id"]

    def events(self, path: str, **body) -> list[dict]:
        """Send a request and return what was reported, without the work's own id."""
        answer = self.client.post(f"/api/{path}", content=json.dumps(body))
        assert answer.status_code == 200, answer.text
        lines = [json.loads(line) for line in answer.text.splitlines()]
        assert lines[0]["event"] == "work"
        return lines[1:]

    def last(self, path: str, **body) -> dict:
        """Send a request and return the last event."""
        return self.events(path, **body)[-1]

    def ask(self, text: str, *pictures: str, **more) -> dict[str, dict]:
        """Ask one question and return the events by name, the last of each."""
        turns = [{"role": "user", "text": text, "pictures": list(pictures)}]
        asked = self.events("ask", run="0", turns=turns, max_new_tokens=6, **more)
        return {event["event"]: event for event in asked}


def studio(perceiver: Perceiver | None = None) -> tuple[object, Sessions]:
    """A studio's application, and its sessions."""
    sessions = Sessions()
    return build_application(AtHand(augmented(), perceiver), sessions=sessions), sessions
