"""The runner's use of memory, devices and time: which experts are loaded and run at the same time."""

from __future__ import annotations

import threading
import tracemalloc

import pytest
from fake_experts import MB, WAIT, Heavy, alone, expert, heavy, meeting, reds

from moai.errors import ExpertError
from moai.perception.cache.store import Store
from moai.perception.running.memory import allocated_bytes
from moai.perception.running.perceiver import Perceiver
from moai.types import Perception


def peak_of(experts, **settings) -> int:
    tracemalloc.start()
    try:
        perceiver = Perceiver(experts, **settings)
        perceiver.perceive(reds(1, 2, 3))
        perceiver.close()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_one_at_a_time_peaks_at_the_largest_and_not_at_the_sum():
    def three():
        return [heavy("small"), heavy("large", size=24 * MB), heavy("middle", size=16 * MB)]

    assert peak_of(three()) > 48 * MB
    assert 24 * MB < peak_of(three(), max_memory=0) < 30 * MB
    assert Heavy.together == 3


def test_each_is_loaded_once_runs_on_all_images_and_is_unloaded():
    experts = [heavy("one"), heavy("two"), heavy("three")]
    seen = Perceiver(experts, batch_size=2, max_memory=0).perceive(reds(1, 2, 3))
    assert all(expert.events == ["load cpu", 2, 1, "unload"] for expert in experts)
    assert Heavy.together == 1 and Heavy.loaded == set()
    assert seen == Perceiver([heavy("one"), heavy("two"), heavy("three")], batch_size=2).perceive(reds(1, 2, 3))


def test_who_fits_into_the_budget_is_loaded_together():
    experts = [heavy(name, memory=8 * MB) for name in "abc"]
    perceiver = Perceiver(experts, max_memory="17MB")
    perceiver.perceive(reds(1))
    assert Heavy.together == 2 and [e.events.count("unload") for e in experts] == [1, 1, 1]
    roomy = [heavy(name, memory=8 * MB) for name in "abc"]
    Perceiver(roomy, max_memory="24MB").perceive(reds(1))
    assert all("unload" not in expert.events for expert in roomy)


def test_an_expert_larger_than_the_budget_runs_alone_and_is_named(caplog):
    seen = Perceiver([heavy("big", memory=80 * MB), heavy("tiny", memory=MB)], max_memory="10MB").perceive(reds(1))
    assert "expert 'big' takes 80.0 MB, more than the 10.0 MB allowed; it runs alone" in caplog.text
    assert seen[0].failures == () and Heavy.together == 1


def test_required_experts_run_in_an_earlier_memory_group():
    graph = heavy("graph", "scene_graph", requires=("open_world",), contexts=[])
    graph.perceive = lambda images, context: graph.contexts.extend(context) or [Perception() for _ in images]
    Perceiver([graph, heavy("dogs")], max_memory=0, batch_size=1).perceive(reds(7, 9))
    assert [context.notes for context in graph.contexts] == [{"dogs": ("7",)}, {"dogs": ("9",)}]


def test_a_full_hit_loads_nothing_memory_groups_either(tmp_path):
    Perceiver([heavy("a"), heavy("b")], store=Store(tmp_path)).perceive(reds(1, 2))
    again = [heavy("a"), heavy("b")]
    Perceiver(again, store=Store(tmp_path), max_memory=0).perceive(reds(1, 2))
    assert [expert.events for expert in again] == [[], []]


def test_progress_over_memory_groups_adds_up_to_the_images():
    told = []
    Perceiver([heavy("a"), heavy("b")], max_memory=0, batch_size=2).perceive(reds(*range(5)), progress=told.append)
    assert sum(told) == 5 and len(told) > 2


@pytest.mark.skipif(allocated_bytes("cpu") is None, reason="psutil is not installed, so memory cannot be measured")
def test_what_loading_took_is_measured_and_used_the_next_time(monkeypatch):
    readings = iter([100, 100 + 8 * MB, 200, 200 + 8 * MB])
    monkeypatch.setattr("moai.perception.running.isolation.allocated_bytes", lambda device: next(readings, 0))
    perceiver = Perceiver([heavy("a"), heavy("b")], max_memory="20MB")
    assert perceiver.sizes() == {"a": None, "b": None}
    perceiver.perceive(reds(1))
    assert Heavy.together == 1 and perceiver.sizes() == {"a": 8 * MB, "b": 8 * MB}
    perceiver.perceive(reds(1))
    assert Heavy.together == 2


def test_different_devices_run_at_the_same_time():
    barrier = threading.Barrier(2)
    both = [meeting("a", barrier), meeting("b", barrier)]
    seen = Perceiver(both, device={"a": "cpu", "b": "cuda:0"}).perceive(reds(1))
    assert seen[0].failures == (), "each waits for the other to run"


def test_one_device_runs_one_expert_after_another():
    busy, met = threading.Lock(), threading.Event()
    assert Perceiver([alone(name, busy, met, 0.05) for name in "ab"]).perceive(reds(1))[0].failures == ()
    both = [alone(name, busy, met, WAIT) for name in "ab"]
    together = Perceiver(both, device={"a": "x", "b": "y"}).perceive(reds(1))[0]
    assert "two calls at the same time" in together.failures[0].reason, "the probe must be able to fail"


def test_a_hung_expert_is_abandoned_in_its_memory_group_and_the_next_one_goes_on():
    release, waited = threading.Event(), []
    hung = heavy("hung", perceive=lambda self, images, context: waited.append(release.wait(WAIT)))
    limits = {"*": WAIT, "hung": 0.2}
    seen = Perceiver([hung, heavy("fine")], max_memory=0, time_limit=limits, batch_size=1).perceive(reds(1, 2))
    assert waited == [], "it is still waiting"
    release.set()
    assert [[failure.expert for failure in p.failures] for p in seen] == [["hung"], ["hung"]]
    assert [p.notes for p in seen] == [{"fine": ("1",)}, {"fine": ("2",)}]


def test_experts_are_loaded_ahead_once_and_one_that_cannot_be_is_named():
    first, broken = expert("first"), expert("second", load=lambda self, device: 1 / 0)
    ready = Perceiver([first])
    ready.load()
    ready.load()
    ready.perceive(reds(1))
    assert first.loads == ["cpu"] and ready.given_up() == {}
    stuck = Perceiver([expert("third"), broken])
    with pytest.raises(ExpertError, match="expert 'second': did not load: ZeroDivisionError"):
        stuck.load()
    assert set(stuck.given_up()) == {"second"}
