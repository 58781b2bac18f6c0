"""A worker's calls: results, errors, time limits, and threads that end or are abandoned."""

from __future__ import annotations

import os
import threading
import time

import pytest
from fake_experts import WAIT

from moai.perception.running.worker import TimedOut, Worker


@pytest.fixture
def worker():
    made = Worker("moai-test")
    yield made
    made.stop()


def test_calls_run_in_one_thread_that_is_not_the_callers(worker):
    threads = {worker.call(threading.get_ident, limit=WAIT) for _ in range(3)}
    assert len(threads) == 1 and threading.get_ident() not in threads


@pytest.mark.parametrize("error", [ValueError("x"), SystemExit(3), KeyboardInterrupt(), TimeoutError("of the engine")])
def test_an_error_is_raised_in_the_caller_and_the_thread_goes_on(worker, error):
    def fail():
        raise error

    before = worker.call(threading.get_ident, limit=WAIT)
    with pytest.raises(type(error)):
        worker.call(fail, limit=WAIT)
    assert worker.call(threading.get_ident, limit=WAIT) == before


def test_a_call_over_its_limit_is_abandoned_and_the_next_one_has_a_new_thread(worker):
    before, release = worker.call(threading.get_ident, limit=WAIT), threading.Event()
    with pytest.raises(TimedOut, match="within 0.05 seconds"):
        worker.call(release.wait, WAIT, limit=0.05)
    assert worker.call(threading.get_ident, limit=WAIT) != before
    release.set()


def test_without_a_limit_it_waits(worker):
    assert worker.call(lambda: time.sleep(0.05) or "done", limit=None) == "done"


def test_a_stopped_worker_ends_its_thread_and_starts_again(worker):
    worker.call(int, limit=WAIT)
    [thread] = [thread for thread in threading.enumerate() if thread.name == "moai-test"]
    worker.stop()
    thread.join(WAIT)
    assert not thread.is_alive() and worker.call(int, limit=WAIT) == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_child_starts_a_thread_of_its_own(worker):
    worker.call(int, limit=WAIT)
    child = os.fork()
    if child == 0:
        os._exit(0 if worker.call(lambda: 7, limit=WAIT) == 7 else 1)
    assert os.waitpid(child, 0)[1] == 0
