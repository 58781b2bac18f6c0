"""The order of experts, their dependency levels, memory groups and device queues, without running any."""

from __future__ import annotations

import threading
import time

import pytest
from fake_experts import WAIT, WHOLE, expert, heavy, reds

from moai.errors import ExpertError
from moai.perception.running.perceiver import Perceiver
from moai.perception.running.schedule import dependency_levels, in_order, memory_groups, run_device_queues
from moai.types import Perception, Segment, TextLine


def test_required_roles_run_first_and_are_passed_in():
    graph = expert("graph", "scene_graph", requires=("panoptic", "open_world"), look=lambda self, image: Perception())
    masks = expert("masks", "panoptic", look=lambda self, image: Perception(segments=(Segment("cat", 1.0, WHOLE),)))
    ocr = expert("ocr", "ocr", look=lambda self, image: Perception(texts=(TextLine("EXIT", 1.0),)))
    perceiver = Perceiver([graph, ocr, masks, expert("dogs")])
    assert [e.name for e in perceiver.experts] == ["ocr", "masks", "dogs", "graph"]
    perceiver.perceive(reds(51, 255))
    assert [context.boxes for context in graph.contexts] == [(("cat", WHOLE), ("dog", WHOLE))] * 2
    assert graph.contexts[0].detections[0].score == 0.2 and graph.contexts[0].texts == ()
    assert ocr.contexts == [Perception(), Perception()]


def test_circles_are_refused():
    with pytest.raises(ExpertError, match="'me' requires its own role 'ocr'"):
        Perceiver([expert("me", "ocr", requires=("ocr",))])
    one, two = expert("one", "a", requires=("b",)), expert("two", "b", requires=("a",))
    with pytest.raises(ExpertError, match="wait for each other: 'one' .*'two'"):
        Perceiver([one, two, expert("fine")])


def test_experts_that_require_nothing_keep_their_places():
    experts = [expert(name, f"role_{name}") for name in "cab"]
    assert in_order(experts) == tuple(experts)


def test_an_expert_runs_after_every_expert_of_a_role_that_it_requires():
    last, first, second = expert("l", "graph", requires=("ocr",)), expert("f", "ocr"), expert("s", "ocr")
    assert in_order([last, first, second]) == (first, second, last)


def test_a_long_circle_names_only_the_experts_in_it():
    roles = "abcd"
    circle = [expert(f"x{role}", role, requires=(roles[i - 1],)) for i, role in enumerate(roles)]
    with pytest.raises(ExpertError, match="'xa' .*'xb' .*'xc' .*'xd' .*; leave one of them out") as caught:
        in_order([expert("fine"), *circle])
    assert "fine" not in str(caught.value)


def test_levels_are_as_deep_as_the_longest_chain():
    a, b = expert("a", "panoptic"), expert("b", "ocr")
    c, d = expert("c", "graph", requires=("panoptic",)), expert("d", "text", requires=("graph", "ocr"))
    assert dependency_levels([a, b, c, d]) == [[a, b], [c], [d]]
    assert dependency_levels([c, b]) == [[c, b]], "a required role without an expert does not count"
    assert dependency_levels([]) == []


def test_a_role_of_two_experts_is_ready_after_the_later_one():
    early, late = expert("early", "ocr"), expert("late", "ocr", requires=("panoptic",))
    masks, graph = expert("masks", "panoptic"), expert("graph", "graph", requires=("ocr",))
    assert dependency_levels(in_order([early, late, masks, graph])) == [[early, masks], [late], [graph]]


@pytest.mark.parametrize(
    ("sizes", "budget", "groups"),
    [
        ((5, 5, 5), 15, ["abc"]),
        ((5, 5, 5), 14, ["ab", "c"]),
        ((5, None, 5), 15, ["a", "b", "c"]),
        ((20, 5, 5), 10, ["a", "bc"]),
        ((5, 20, 5), 10, ["a", "b", "c"]),
        ((0, 0, 0), 0, ["abc"]),
        ((1, 1, 1), 0, ["a", "b", "c"]),
    ],
)
def test_memory_groups_fit_into_the_budget_and_keep_the_order(sizes, budget, groups):
    experts = [heavy(name) for name in "abc"]
    found = memory_groups(experts, dict(zip("abc", sizes, strict=True)), budget)
    assert ["".join(expert.name for expert in group) for group in found] == groups
    assert memory_groups([], {}, budget) == []


def test_device_queues_keep_the_order_of_results_and_raise_errors():
    assert run_device_queues([(device, lambda n=n: n) for n, device in enumerate("abab")]) == [0, 1, 2, 3]
    assert run_device_queues([]) == []
    with pytest.raises(KeyError, match="b"):
        run_device_queues([("x", lambda: 1), ("y", lambda: {}["b"])])


def test_the_error_of_the_first_failing_job_is_raised_after_the_others_of_its_queue_ran():
    ran = []
    jobs = [("x", lambda: 1 / 0), ("x", lambda: ran.append("x")), ("y", lambda: ran.append("y") or {}["b"])]
    with pytest.raises(ZeroDivisionError):
        run_device_queues(jobs)
    assert "x" in ran


def test_one_device_runs_its_jobs_in_order_in_the_calling_thread():
    threads = run_device_queues([("cpu", threading.get_ident)] * 3)
    assert threads == [threading.get_ident()] * 3


def test_two_devices_run_at_the_same_time():
    barrier = threading.Barrier(2)
    assert sorted(run_device_queues([(device, lambda: barrier.wait(WAIT)) for device in "ab"])) == [0, 1]


def test_a_ctrl_c_in_the_callers_queue_does_not_wait_for_the_others():
    release = threading.Event()

    def interrupt():
        raise KeyboardInterrupt

    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        run_device_queues([("a", interrupt), ("b", lambda: release.wait(WAIT))])
    release.set()
    assert time.monotonic() - start < WAIT / 2
