"""A slow expert shows that it works, can be skipped or stopped, and does not keep others waiting."""

import json
import threading
import time

import pytest
import tiny
from moai_studio import sessions as limits
from studio_visitor import WAIT, Slow, Visitor, studio

from moai import Perceiver


@pytest.fixture
def slow():
    expert = Slow()
    yield expert
    expert.go.set()


def later(call, *args, **more) -> tuple[threading.Thread, list]:
    """Call in a thread; the list gets the result."""
    results: list = []
    thread = threading.Thread(target=lambda: results.append(call(*args, **more)))
    thread.start()
    return thread, results


def running(sessions, visitor) -> str:
    """The id of the visitor's only work."""
    end = time.monotonic() + WAIT
    while not sessions.find(visitor.session).works:
        assert time.monotonic() < end
        time.sleep(0.01)
    [work] = sessions.find(visitor.session).works
    return work


def test_an_expert_is_skipped_and_the_answer_comes_without_it(slow):
    app, sessions = studio(Perceiver(["tiny-panoptic", slow]))
    visitor = Visitor(app)
    name = visitor.add(tiny.picture("red"))
    thread, results = later(visitor.ask, "What color is it?", name)
    assert slow.busy.wait(WAIT)
    visitor.client.post("/api/stop", content=json.dumps({"work": running(sessions, visitor), "expert": "tiny-slow"}))
    thread.join(WAIT)
    assert results[0]["answer"]["text"] is not None
    seen = visitor.last("perceive", run="0", picture=name)
    failed = [one for one in seen["experts"] if one["failure"]]
    assert [(one["name"], one["failure"]) for one in failed] == [("tiny-slow", "stopped before it gave a result")]
    slow.go.set()
    again = visitor.last("perceive", run="0", picture=name, again=True)
    assert [one["name"] for one in again["experts"] if not one["failure"]] == ["tiny-panoptic", "tiny-slow"]


def test_a_work_is_stopped_by_its_own_visitor_only(slow):
    app, sessions = studio(Perceiver([slow]))
    visitor, stranger = Visitor(app), Visitor(app)
    name = visitor.add(tiny.picture("red"))
    thread, results = later(visitor.events, "perceive", run="0", picture=name)
    assert slow.busy.wait(WAIT)
    work = running(sessions, visitor)
    stranger.client.post("/api/stop", content=json.dumps({"work": work}))
    assert work in sessions.find(visitor.session).works
    visitor.client.post("/api/stop", content=json.dumps({"work": work}))
    thread.join(WAIT)
    assert results[0][-1] == {"event": "stopped"} and not sessions.find(visitor.session).works


def test_generation_stops_between_tokens(monkeypatch):
    app, sessions = studio()
    visitor = Visitor(app)
    name = visitor.add(tiny.picture("red"))
    from moai_studio.asking import Streamed

    sent, put = threading.Event(), Streamed.put

    def stopping(self, value):
        put(self, value)
        if not sent.is_set():
            sent.set()
            self.work.stop()

    monkeypatch.setattr(Streamed, "put", stopping)
    turns = [{"role": "user", "text": "What color is it?", "pictures": [name]}]
    events = visitor.events("ask", run="0", turns=turns, max_new_tokens=200)
    assert events[-1] == {"event": "stopped"} and not [e for e in events if e["event"] == "answer"]


def test_another_visitor_is_answered_meanwhile(slow):
    app, _ = studio(Perceiver(["tiny-panoptic", slow]))
    one, other = Visitor(app), Visitor(app)
    thread, _ = later(one.events, "perceive", run="0", picture=one.add(tiny.picture("red")))
    assert slow.busy.wait(WAIT)
    assert other.last("runs/0")["answers"] and other.client.get("/api/state").status_code == 200
    turns = [{"role": "user", "text": "What is it?"}]  # without a picture no expert is needed
    assert other.events("ask", run="0", turns=turns, max_new_tokens=2)[-1]["event"] == "measured"
    slow.go.set()
    thread.join(WAIT)


def test_too_much_at_once_is_refused_with_a_sentence(slow, monkeypatch):
    monkeypatch.setattr(limits, "MAX_OWN_WORKS", 1)
    app, _ = studio(Perceiver([slow]))
    visitor = Visitor(app)
    name = visitor.add(tiny.picture("red"))
    thread, _ = later(visitor.events, "perceive", run="0", picture=name)
    assert slow.busy.wait(WAIT)
    refused = visitor.client.post("/api/perceive", content=json.dumps({"run": "0", "picture": name}))
    assert refused.status_code == 429 and "try again" in refused.json()["error"]
    slow.go.set()
    thread.join(WAIT)


def test_a_fault_of_ours_is_said_and_logged(monkeypatch, caplog):
    app, _ = studio()
    visitor = Visitor(app)
    name = visitor.add(tiny.picture("red"))

    def broken(*_):
        raise KeyError("a secret")

    monkeypatch.setattr("moai_studio.application.perceive", broken)
    last = visitor.last("perceive", run="0", picture=name)
    assert last == {"event": "error", "message": "something went wrong in the studio itself; its log says what"}
    assert "a secret" in caplog.text
