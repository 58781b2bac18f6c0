"""Batches of waiting requests: each answer as alone, whoever else asks, leaves or fails."""

from __future__ import annotations

import gc
import math
import queue
import threading
import time
import weakref
from dataclasses import replace

import pytest
import tiny
from moai_serve.asking import Asked, Sampling
from moai_serve.engine import Engine
from moai_serve.errors import ApiError
from moai_serve.job import Finished, Grown, Job, Perceived
from moai_serve.metrics import Metrics
from moai_serve.settings import Settings
from running_server import QUESTION, asking, running

from moai import Conversation

COLORS = ("red", "green", "blue", "black")
QUESTIONS = (QUESTION, "What is it?", "Is there a red shape in it, or is there none of them at all?")
GREEDY = Sampling(max_tokens=12, logprobs=True, top_logprobs=2)


class Waiting(Job):
    """A job whose reports are kept."""

    def __init__(self, asked: Asked, seconds: float = 60.0) -> None:
        self.reports: queue.Queue = queue.Queue()
        super().__init__(asked, self.reports.put, time.monotonic() + seconds)

    def result(self) -> list:
        """Everything up to the last answer, or the error."""
        found = []
        while sum(isinstance(one, Finished) for one in found) < self.asked.choices:
            found.append(self.reports.get(timeout=30))
            if isinstance(found[-1], ApiError):
                raise found[-1]
        return found


def asked(number: int, **options) -> Asked:
    picture = tiny.picture(COLORS[number % 4], "ellipse" if number % 2 else "rectangle")
    options.setdefault("sampling", GREEDY)
    return Asked(Conversation.ask(QUESTIONS[number % 3], [picture] if number % 5 else ()), **options)


def engine_of(augmented, **settings) -> Engine:
    return Engine(augmented, Settings(**{"name": "tiny", "batch_size": 64, **settings}), Metrics())


def answered(augmented, given, together: bool = True, **settings) -> list[Finished]:
    """Answer requests in one batch, which the sizes of batches prove, or one by one."""
    engine, jobs = engine_of(augmented, **settings), [Waiting(one) for one in given]
    if together:
        for job in jobs:
            engine.submit(job)  # before its threads run, so that all of them wait
    engine.start()
    try:
        found = []
        for job in jobs:
            if not together:
                engine.submit(job)
            found += [one for one in job.result() if isinstance(one, Finished)]
    finally:
        engine.stop()
    batches = engine.metrics.registry.get_sample_value("moai_batch_size_count")
    assert batches == (1 if together else len(jobs))
    return found


def same(one: Finished, other: Finished) -> bool:
    pairs = list(zip(one.scores, other.scores, strict=True))
    return (
        (one.text, one.reason, one.tokens) == (other.text, other.reason, other.tokens)
        and all(a.token == b.token and math.isclose(a.logprob, b.logprob, abs_tol=1e-4) for a, b in pairs)
        and all(math.isclose(x[1], y[1], abs_tol=1e-4) for a, b in pairs for x, y in zip(a.top, b.top, strict=True))
    )


def test_answers_and_log_probabilities_are_those_of_each_alone(augmented):
    given = [asked(number) for number in range(12)]
    together, alone = answered(augmented, given), answered(augmented, given, together=False)
    assert all(same(*pair) for pair in zip(together, alone, strict=True))
    assert len({one.text for one in together}) > 4
    expected = augmented.ask(given[1].conversation.images[0], QUESTIONS[1], max_new_tokens=12).text
    assert together[1].text == expected


def test_each_row_is_drawn_its_own_way_whatever_the_batch(augmented):
    warm = replace(GREEDY, temperature=1.2, top_p=0.9, seed=5)
    ways = [GREEDY, warm, replace(warm, seed=6), replace(GREEDY, max_tokens=2), replace(GREEDY, stop=("n",)), warm]
    given = [asked(1, sampling=one) for one in ways]
    together = answered(augmented, given)
    assert all(same(*pair) for pair in zip(together, answered(augmented, given, together=False), strict=True))
    assert together[1].text == together[5].text != together[2].text and together[1].text != together[0].text
    assert together[3].tokens == 2 and together[4].reason == "stop" and together[0].text.startswith(together[4].text)
    [first, second] = answered(augmented, [asked(1, sampling=warm, choices=2)])
    assert first.text == together[1].text != second.text


def test_an_answer_is_told_when_it_ends_not_when_its_batch_does(augmented):
    engine = engine_of(augmented)
    short, long = (Waiting(asked(1, sampling=replace(GREEDY, max_tokens=count), stream=True)) for count in (1, 40))
    order: list[str] = []
    for name, job in (("short", short), ("long", long)):
        job.report = lambda report, name=name: order.append(f"{name} {type(report).__name__}")
        engine.submit(job)
    engine.start()
    while order.count("long Finished") < 1:
        time.sleep(0.002)
    engine.stop()
    assert order.index("short Finished") < order.index("long Grown") + 3
    assert order.count("long Grown") > 10 and order[0] == "short Perceived"


def test_whoever_leaves_frees_a_place_at_once(augmented):
    engine = engine_of(augmented, max_waiting=2)
    first, second, third = (Waiting(asked(number)) for number in (1, 2, 3))
    engine.submit(first)
    engine.submit(second)
    with pytest.raises(ApiError) as caught:
        engine.submit(third)
    assert caught.value.status == 429 and int(caught.value.headers["retry-after"]) >= 1
    engine.leave(first)
    engine.submit(third)
    engine.start()
    assert [isinstance(one, Perceived) for one in second.result()] == [True, False]
    assert third.result()
    engine.stop()
    assert first.reports.empty()


def test_a_batch_ends_when_all_of_its_clients_have_left(augmented):
    engine = engine_of(augmented)
    job = Waiting(asked(1, sampling=replace(GREEDY, max_tokens=150), stream=True))
    engine.submit(job)
    engine.start()
    while not isinstance(job.reports.get(timeout=30), Grown):
        pass
    engine.leave(job)
    next_one = Waiting(asked(2))
    engine.submit(next_one)
    next_one.result()
    engine.stop()
    assert job.choices[0].ended == "left" and len(job.choices[0].tokens) < 100


def test_what_fails_in_a_batch_costs_no_other(augmented, monkeypatch):
    build, bad = type(augmented.processor).batch, asked(3)

    def batch(self, conversations, *args, **kwargs):
        if bad.conversation in conversations:
            raise RuntimeError("a secret of the user")
        return build(self, conversations, *args, **kwargs)

    monkeypatch.setattr(type(augmented.processor), "batch", batch)
    engine, jobs = engine_of(augmented), [Waiting(one) for one in (asked(1), bad, asked(2))]
    for job in jobs:
        engine.submit(job)
    engine.start()
    assert jobs[0].result() and jobs[2].result()
    with pytest.raises(ApiError) as caught:
        jobs[1].result()
    engine.stop()
    assert caught.value.status == 500 and "secret" not in caught.value.message


def test_time_ends_what_waits_and_what_runs(augmented):
    engine = engine_of(augmented)
    late, slow = Waiting(asked(1), seconds=-1.0), Waiting(asked(2, sampling=replace(GREEDY, max_tokens=150)), 0.1)
    engine.submit(late)
    engine.submit(slow)
    engine.start()
    for job in (late, slow):
        with pytest.raises(ApiError) as caught:
            job.result()
        assert (caught.value.status, caught.value.code) == (504, "timeout")
    engine.stop()


def test_what_waits_when_the_engine_stops_is_told(augmented):
    engine, job = engine_of(augmented), Waiting(asked(1))
    engine.submit(job)
    engine.stop()
    with pytest.raises(ApiError, match="stopping"):
        job.result()
    with pytest.raises(ApiError, match="stopping"):
        engine.submit(job)


def test_pictures_are_perceived_once_for_a_batch(augmented, monkeypatch):
    calls, perceive = [], tiny.TinyPanoptic.perceive

    def counted(self, images, context):
        calls.append(len(images))
        return perceive(self, images, context)

    monkeypatch.setattr(tiny.TinyPanoptic, "perceive", counted)
    answered(augmented, [asked(1, choices=3), asked(2), asked(3)])
    assert calls == [3]


@pytest.mark.slow
@pytest.mark.parametrize("answering", [1, 2])
def test_clients_at_once_are_batched_and_each_gets_its_own(augmented, answering):
    with running(augmented, batch_size=8, answering=answering) as made:
        client, found = made.client(), {}

        def ask(number: int) -> None:
            picture = tiny.picture(COLORS[number % 4])
            answer = client.chat.completions.create(model="tiny", messages=asking(QUESTION, picture), max_tokens=8)
            found[number] = (answer.choices[0].message.content, answer.moai["verbalized"])

        threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        batches = made.inside.metrics.registry.get_sample_value("moai_batch_size_count")
    expected = [augmented.ask(tiny.picture(color), QUESTION, max_new_tokens=8) for color in COLORS]
    assert found == {n: (expected[n % 4].text, expected[n % 4].verbalized) for n in range(16)}
    assert batches < 16


@pytest.mark.parametrize("stream", [False, True])
def test_nothing_of_an_answered_request_is_held(served, monkeypatch, stream):
    made, create = [], Job.__init__

    def recorded(self, *args, **kwargs):
        create(self, *args, **kwargs)
        made.append(weakref.ref(self.asked.conversation.images[0]))

    monkeypatch.setattr(Job, "__init__", recorded)
    gc.collect()
    gc.disable()
    try:
        answer = served.client().chat.completions.create(
            model="tiny", messages=asking(QUESTION, tiny.picture("red")), max_tokens=2, stream=stream
        )
        assert list(answer)
        until = time.monotonic() + 10
        while made[0]() is not None and time.monotonic() < until:
            time.sleep(0.01)
        assert made[0]() is None, "a circle of references would hold pictures until the collector comes"
    finally:
        gc.enable()
