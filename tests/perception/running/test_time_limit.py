"""The time limit of experts: a slow batch is tried image by image, and a call that takes too long ends no expert."""

from __future__ import annotations

import threading
import time

import pytest
from fake_experts import WAIT, Base, dog, expert, failures, meeting, reds

from moai.errors import ExpertError
from moai.perception.running.isolation import LATE_IN_A_ROW
from moai.perception.running.perceiver import Perceiver

LATE = "gave no result within 0.2 seconds; raise the time limit"


@pytest.fixture
def release():
    """Let the calls that hang end with the test, and their threads with them."""
    event = threading.Event()
    yield event
    event.set()


def hanging(release: threading.Event, hangs, **attributes) -> Base:
    """Hangs where ``hangs(batches, reds)`` says so: of the sizes of all batches so far, and this batch's red values."""

    def perceive(self, images, context):
        values = [image.getpixel((0, 0))[0] for image in images]
        self.batches.append(len(images))
        if hangs(self.batches, values):
            release.wait(WAIT)
        return [dog() for _ in images]

    return expert("slow", perceive=perceive, **attributes)


def test_a_batch_has_its_limit_for_each_image():
    slow = expert("slow", look=lambda self, image: time.sleep(0.15) or dog())
    seen = Perceiver([slow], batch_size=4, time_limit=0.5).perceive(reds(1, 2, 3, 4))  # 0.6 seconds of 2
    assert all(perception.failures == () for perception in seen) and slow.batches == [4]


def test_an_expert_that_is_late_once_is_called_again_for_the_same_images_and_the_next(release, caplog):
    slow = hanging(release, lambda batches, values: len(batches) == 1)
    perceiver = Perceiver([slow, expert("dogs")], batch_size=2, time_limit={"slow": 0.2})
    seen = perceiver.perceive(reds(1, 2, 3, 4)) + perceiver.perceive(reds(5))
    assert [len(perception.detections) for perception in seen] == [2] * 5
    assert slow.batches == [2, 1, 1, 2, 1] and slow.loads == ["cpu"] * 2, "it is loaded anew once"
    assert [r.getMessage() for r in caplog.records] == [
        "expert 'slow' takes too long for 2 images; each is tried alone"
    ]
    assert perceiver.given_up() == {}


def test_an_image_that_makes_an_expert_hang_costs_only_itself(release):
    slow = hanging(release, lambda batches, values: 13 in values)
    seen = Perceiver([slow], batch_size=4, time_limit=0.2).perceive(reds(1, 13, 2, 3, 4))
    assert [failures(perception) for perception in seen] == [{}, {"slow": LATE}, {}, {}, {}]


def test_an_expert_that_always_hangs_does_so_for_few_images_of_a_batch(release):
    slow = hanging(release, lambda batches, values: True)
    perceiver = Perceiver([slow], batch_size=6, time_limit=0.1)
    started = time.monotonic()
    reasons = [failures(perception)["slow"] for perception in perceiver.perceive(reds(*range(6)))]
    assert LATE_IN_A_ROW == 2 and slow.batches == [6, 1, 1] and time.monotonic() - started < WAIT / 2
    assert reasons[:2] == ["gave no result within 0.1 seconds; raise the time limit"] * 2
    assert set(reasons[2:]) == {
        "not tried after 2 images in a row without a result within 0.1 seconds each; raise the time limit"
    }
    assert failures(perceiver.perceive(reds(1))[0]) and slow.batches[-1] == 1, "it is tried again for the next batch"


def test_the_engine_of_an_abandoned_call_is_not_called_by_another_thread(release):
    class Engine(Base):
        name = "slow"

        def load(self, device="cpu"):
            self.engine = threading.Lock()

        def perceive(self, images, context):
            assert self.engine.acquire(blocking=False), "two calls in one engine"
            if images[0].getpixel((0, 0))[0] == 13:
                release.wait(WAIT)
            self.engine.release()
            return [dog() for _ in images]

    perceiver = Perceiver([Engine()], batch_size=1, time_limit=0.2)
    seen = perceiver.perceive(reds(13, 1))
    assert [failures(perception) for perception in seen] == [{"slow": LATE}, {}]


def test_an_expert_that_cannot_be_loaded_anew_is_not_called_again(release):
    def load(self, device="cpu"):
        self.loads.append(device)
        if len(self.loads) > 1:
            raise MemoryError("the first engine is still there")

    slow = hanging(release, lambda batches, values: True, load=load)
    perceiver = Perceiver([slow], batch_size=2, time_limit=0.1)
    reason = "did not load: MemoryError: the first engine is still there"
    assert [failures(p)["slow"] for p in perceiver.perceive(reds(1, 2)) + perceiver.perceive(reds(3))] == [reason] * 3
    assert perceiver.given_up() == {"slow": reason} and slow.batches == [2] and slow.loads == ["cpu"] * 2


def test_other_threads_of_a_thread_safe_expert_go_on_when_one_is_late(release):
    barrier = threading.Barrier(2)
    slow = meeting("slow", barrier, thread_safe=True)
    perceiver = Perceiver([slow], time_limit=0.5)
    [late] = perceiver.perceive(reds(1))  # waits for another call, which does not come
    barrier.reset()
    found = []
    threads = [threading.Thread(target=lambda: found.extend(perceiver.perceive(reds(1)))) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(WAIT)
    assert "within 0.5 seconds" in failures(late)["slow"]
    assert [perception.failures for perception in found] == [(), ()]


def test_a_limit_that_is_set_later_is_the_next_calls():
    slow = expert("slow", look=lambda self, image: time.sleep(0.3) or dog())
    perceiver = Perceiver([slow, expert("dogs")], time_limit=0.05)
    assert failures(perceiver.perceive(reds(1))[0]).keys() == {"slow"}
    perceiver.limit_time({"slow": None})
    assert failures(perceiver.perceive(reds(1))[0]) == {}
    with pytest.raises(ExpertError, match="time_limit is given for expert 'slo', which is not listed.*'slow'"):
        perceiver.limit_time({"slo": 1})
