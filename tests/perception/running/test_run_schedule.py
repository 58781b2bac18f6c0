"""Who is loaded when, who looks at the same time, where and for how long: what `Perceiver` promises of resources."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from moai.errors import ExpertError
from moai.expert import Expert
from moai.perception.cache.store import Store
from moai.perception.running.device_queues import in_lanes
from moai.perception.running.memory import held, parse_size, say_size
from moai.perception.running.perceiver import Perceiver
from moai.perception.running.schedule import in_shifts, in_waves
from moai.types import Perception

MB = 10**6
WAIT = 20.0  # seconds after which a test that hangs fails instead


class Heavy(Expert):
    """Allocates ``size`` bytes while it is loaded; counts who is loaded at the same time."""

    role, version, size = "open_world", "1", 8 * MB
    loaded: set[str] = set()
    together = 0

    def __init__(self):
        super().__init__()
        self.events = []

    def load(self, device="cpu"):
        self.events.append(f"load {device}")
        self.weights = np.ones(self.size, np.uint8)
        Heavy.loaded.add(self.name)
        Heavy.together = max(Heavy.together, len(Heavy.loaded))

    def unload(self):
        self.events.append("unload")
        self.weights = None
        Heavy.loaded.discard(self.name)

    def perceive(self, images, context):
        self.events.append(len(images))
        return [Perception(notes={self.name: (f"{self.weights[0] * image.getpixel((0, 0))[0]}",)}) for image in images]


def heavy(name: str, role: str = "open_world", **attributes) -> Heavy:
    return type(name, (Heavy,), {"name": name, "role": role, **attributes})()


def reds(*values: int) -> list[Image.Image]:
    return [Image.new("RGB", (4, 4), (value, 0, 0)) for value in values]


@pytest.fixture(autouse=True)
def nobody_loaded():
    Heavy.loaded.clear()
    Heavy.together = 0


# --- memory


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


def test_each_is_loaded_once_looks_at_all_images_and_is_unloaded():
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


def test_required_experts_look_in_an_earlier_shift():
    graph = heavy("graph", "scene_graph", requires=("open_world",), contexts=[])
    graph.perceive = lambda images, context: graph.contexts.extend(context) or [Perception() for _ in images]
    Perceiver([graph, heavy("dogs")], max_memory=0, batch_size=1).perceive(reds(7, 9))
    assert [context.notes for context in graph.contexts] == [{"dogs": ("7",)}, {"dogs": ("9",)}]


def test_a_full_hit_loads_nothing_in_shifts_either(tmp_path):
    Perceiver([heavy("a"), heavy("b")], store=Store(tmp_path)).perceive(reds(1, 2))
    again = [heavy("a"), heavy("b")]
    Perceiver(again, store=Store(tmp_path), max_memory=0).perceive(reds(1, 2))
    assert [expert.events for expert in again] == [[], []]


def test_progress_over_shifts_adds_up_to_the_images():
    told = []
    Perceiver([heavy("a"), heavy("b")], max_memory=0, batch_size=2).perceive(reds(*range(5)), progress=told.append)
    assert sum(told) == 5 and len(told) > 2


@pytest.mark.skipif(held("cpu") is None, reason="psutil is not installed, so memory cannot be measured")
def test_what_loading_took_is_measured_and_used_the_next_time(monkeypatch):
    readings = iter([100, 100 + 8 * MB, 200, 200 + 8 * MB])
    monkeypatch.setattr("moai.perception.running.isolation.held", lambda device: next(readings, 0))
    perceiver = Perceiver([heavy("a"), heavy("b")], max_memory="20MB")
    assert perceiver.sizes() == {"a": None, "b": None}
    perceiver.perceive(reds(1))
    assert Heavy.together == 1 and perceiver.sizes() == {"a": 8 * MB, "b": 8 * MB}
    perceiver.perceive(reds(1))
    assert Heavy.together == 2


def test_resident_memory_grows_with_what_is_held():
    # In a process of its own: late in a long test run, numpy gets memory back that this process never returned.
    code = (
        "import numpy as np\n"
        "from moai.perception.running.memory import held\n"
        "before = held('cpu')\n"
        f"block = np.ones({64 * MB}, np.uint8)\n"
        "print(held('cpu') - before, block[0])"
    )
    grown, one = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert int(grown) > 50 * MB and one == "1"
    assert held("meta") is None


@pytest.mark.parametrize("text,size", [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("10", 10), ("2k", 2000), (0, 0)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8 apples", "", "-1", -1, "GB", True, None])
def test_what_is_no_size_is_a_sentence(text):
    with pytest.raises(ExpertError, match="write a number of bytes, or one such as 8GB"):
        parse_size(text)


def test_sizes_are_said():
    assert [say_size(size) for size in (999, 1500, 8 * 10**9, 123456789)] == ["999 B", "1.5 KB", "8.0 GB", "123 MB"]


def test_shifts_and_waves():
    panoptic, words, graph = heavy("p", "panoptic"), heavy("w", "ocr"), heavy("g", "graph", requires=("panoptic",))
    assert in_waves([panoptic, words, graph]) == [[panoptic, words], [graph]]
    assert in_waves([]) == []
    sizes = {"p": 5, "w": 5, "g": None}
    assert in_shifts([panoptic, words, graph], sizes, 10) == [[panoptic, words], [graph]]
    assert in_shifts([panoptic, graph, words], sizes, 10) == [[panoptic], [graph], [words]]
    assert in_shifts([panoptic, words], sizes, 0) == [[panoptic], [words]]


# --- devices


def test_each_expert_gets_its_device():
    one, two, three = heavy("one"), heavy("two"), heavy("three")
    Perceiver([one, two, three], device={"*": "cuda:1", "two": "cpu"}).perceive(reds(1))
    assert [expert.events[0] for expert in (one, two, three)] == ["load cuda:1", "load cpu", "load cuda:1"]
    other = heavy("other")
    Perceiver([other], device={}).perceive(reds(1))
    assert other.events[0] == "load cpu"


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"device": {"tow": "cpu"}}, "device is given for expert 'tow', which is not listed; did you mean 'two'?"),
        ({"device": {"two": ""}}, "device of expert 'two' must be a non-empty string"),
        ({"time_limit": {"two": 0}}, "time_limit of expert 'two' must be positive seconds"),
        ({"time_limit": "soon"}, "time_limit must be positive seconds"),
        ({"max_memory": "much"}, "'much' is no amount of memory"),
    ],
)
def test_wrong_settings_are_sentences(settings, message):
    with pytest.raises(ExpertError) as caught:
        Perceiver([heavy("two")], **settings)
    assert message in str(caught.value)


def meeting(name: str, barrier: threading.Barrier, **attributes) -> Heavy:
    def perceive(self, images, context):
        barrier.wait(WAIT)
        return [Perception() for _ in images]

    return heavy(name, perceive=perceive, **attributes)


def test_different_devices_look_at_the_same_time():
    barrier = threading.Barrier(2)
    both = [meeting("a", barrier), meeting("b", barrier)]
    seen = Perceiver(both, device={"a": "cpu", "b": "cuda:0"}).perceive(reds(1))
    assert seen[0].failures == (), "each waits for the other to look"


def alone(name: str, busy: threading.Lock, met: threading.Event, seconds: float) -> Heavy:
    """Looks for ``seconds``, or until another call has met this one."""

    def perceive(self, images, context):
        if not busy.acquire(blocking=False):
            met.set()
            raise AssertionError("two calls at the same time")
        met.wait(seconds)
        busy.release()
        return [Perception() for _ in images]

    return heavy(name, perceive=perceive)


def test_one_device_is_asked_one_after_another():
    busy, met = threading.Lock(), threading.Event()
    assert Perceiver([alone(name, busy, met, 0.05) for name in "ab"]).perceive(reds(1))[0].failures == ()
    both = [alone(name, busy, met, WAIT) for name in "ab"]
    together = Perceiver(both, device={"a": "x", "b": "y"}).perceive(reds(1))[0]
    assert "two calls at the same time" in together.failures[0].reason, "the probe must be able to fail"


def test_lanes_keep_the_order_of_results_and_pass_errors_on():
    assert in_lanes([(lane, lambda n=n: n) for n, lane in enumerate("abab")]) == [0, 1, 2, 3]
    assert in_lanes([]) == []
    with pytest.raises(KeyError, match="b"):
        in_lanes([("x", lambda: 1), ("y", lambda: {}["b"])])


# --- time limits


def test_a_time_limit_of_its_own():
    release = threading.Event()

    def wait(seconds):
        def perceive(self, images, context):
            release.wait(seconds)
            return [Perception() for _ in images]

        return perceive

    slow, slower = heavy("slow", perceive=wait(WAIT)), heavy("slower", perceive=wait(0.3))  # longer than the others may
    seen = Perceiver([slow, slower], time_limit={"*": 0.1, "slower": WAIT}).perceive(reds(1))
    release.set()
    [failure] = seen[0].failures
    assert failure.expert == "slow" and "within 0.1 seconds" in failure.reason


def test_a_hung_expert_is_abandoned_in_its_shift_and_the_next_one_goes_on():
    release, waited = threading.Event(), []
    hung = heavy("hung", perceive=lambda self, images, context: waited.append(release.wait(WAIT)))
    limits = {"*": WAIT, "hung": 0.2}
    seen = Perceiver([hung, heavy("fine")], max_memory=0, time_limit=limits, batch_size=1).perceive(reds(1, 2))
    assert waited == [], "it is still waiting"
    release.set()
    assert [[failure.expert for failure in p.failures] for p in seen] == [["hung"], ["hung"]]
    assert [p.notes for p in seen] == [{"fine": ("1",)}, {"fine": ("2",)}]


# --- threads


def test_a_thread_safe_expert_is_called_from_several_threads_at_once():
    barrier = threading.Barrier(3)
    perceiver = Perceiver([meeting("safe", barrier, thread_safe=True)], time_limit=WAIT)
    assert_all_fine(perceiver, 3)
    assert perceiver.experts[0].events == ["load cpu", "unload"], "it is loaded once, whoever comes first"


def test_another_expert_is_not():
    assert_all_fine(Perceiver([alone("alone", threading.Lock(), threading.Event(), 0.05)]), 3)


def assert_all_fine(perceiver: Perceiver, count: int) -> None:
    found = []
    threads = [threading.Thread(target=lambda: found.extend(perceiver.perceive(reds(1)))) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert [seen.failures for seen in found] == [()] * count
    perceiver.close()
    assert perceiver.experts[0].events[-1] == "unload"


# --- weights in the cache key


def test_other_weights_perceive_again_and_doubtful_ones_are_not_cached(tmp_path, caplog):
    store = Store(tmp_path)

    def batches(weights_id) -> list:
        expert = heavy("a", weights_id=weights_id)
        Perceiver([expert], store=store).perceive(reds(1))
        return [event for event in expert.events if isinstance(event, int)]

    names = ("one", "one", "two", "one", "")
    assert [batches(lambda self, name=name: name) for name in names] == [[1], [], [1], [], [1]]

    def gone(self):
        raise FileNotFoundError("weights.pth")

    count = len(store)
    with caplog.at_level(logging.WARNING):
        assert [batches(gone), batches(gone), batches(lambda self: None)] == [[1], [1], [1]]
    assert len(store) == count
    assert "weights_id: FileNotFoundError: weights.pth; nothing it sees is cached" in caplog.text
    assert "weights_id: returned NoneType, not str" in caplog.text
