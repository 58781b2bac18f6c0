"""A call that is followed expert by expert, and stopped from another thread."""

from __future__ import annotations

import threading

import pytest
from fake_experts import WAIT, Base, expert, reds

from moai.perception.cache.store import Store
from moai.perception.running.perceiver import Perceiver
from moai.perception.running.watch import STOPPED, Watch
from moai.types import Perception


class Slow(Base):
    """Waits until it is let go, in ``load`` or in ``perceive``."""

    name, waits_in = "slow", "perceive"

    def __init__(self):
        super().__init__()
        self.busy, self.go = threading.Event(), threading.Event()

    def load(self, device="cpu"):
        super().load(device)
        if self.waits_in == "load":
            self.wait()

    def perceive(self, images, context):
        if self.waits_in == "perceive":
            self.wait()
        return super().perceive(images, context)

    def wait(self):
        self.busy.set()
        assert self.go.wait(WAIT)


def stopped_when_busy(perceiver: Perceiver, slow: Slow, watch: Watch, *names: str | None) -> Perception:
    stopper = threading.Thread(target=lambda: (slow.busy.wait(WAIT), [watch.stop(name) for name in names]))
    stopper.start()
    [found] = perceiver.perceive(reds(255), watch=watch)
    stopper.join()
    return found


def test_a_watch_is_told_of_each_expert_in_order():
    told = []
    watch = Watch(lambda name: told.append(("began", name)), lambda name: told.append(("ended", name)))
    Perceiver([expert("dogs"), expert("cats")]).perceive(reds(255), watch=watch)
    assert told == [("began", "dogs"), ("ended", "dogs"), ("began", "cats"), ("ended", "cats")]


@pytest.mark.parametrize("waits_in", ["perceive", "load"])
def test_one_expert_is_stopped_and_the_others_go_on(waits_in, tmp_path):
    slow = type("Slow", (Slow,), {"waits_in": waits_in})()
    perceiver = Perceiver([expert("dogs"), slow, expert("cats")], store=Store(tmp_path))
    found = stopped_when_busy(perceiver, slow, Watch(), "slow")
    assert [source.expert for source in found.sources] == ["dogs", "cats"]
    assert [(failure.expert, failure.reason) for failure in found.failures] == [("slow", STOPPED)]
    slow.go.set()
    [again] = perceiver.perceive(reds(255))  # nothing of the stopped call was cached, and the expert is not given up
    assert [source.expert for source in again.sources] == ["dogs", "slow", "cats"] and perceiver.given_up() == {}


def test_all_that_have_not_ended_are_stopped():
    slow, later = Slow(), expert("later")
    found = stopped_when_busy(Perceiver([expert("dogs"), slow, later]), slow, Watch(), None)
    assert [source.expert for source in found.sources] == ["dogs"]
    assert [failure.expert for failure in found.failures] == ["slow", "later"] and later.loads == []
    slow.go.set()


@pytest.mark.parametrize("waits_in", ["perceive", "load"])
def test_a_call_that_waits_for_an_expert_in_use_is_stopped(waits_in):
    slow = type("Slow", (Slow,), {"waits_in": waits_in})()
    perceiver = Perceiver([slow])
    first = threading.Thread(target=perceiver.perceive, args=(reds(255),))
    first.start()
    assert slow.busy.wait(WAIT)
    found = stopped_when_busy(perceiver, slow, Watch(), "slow")
    assert found.failures[0].reason == STOPPED
    slow.go.set()
    first.join(WAIT)
    assert slow.batches == [1]  # the first call had its result
