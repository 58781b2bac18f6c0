"""Hostile requests: each is refused in OpenAI's form, and afterwards the server answers and holds nothing."""

from __future__ import annotations

import collections
import concurrent.futures
import gc
import json
import re
import time
from pathlib import Path

import psutil
import pytest
import tiny
from hostile import corpus
from hostile_request import LIMITS, Attack, answer
from running_server import QUESTION, asking, running

PAGE = Path(__file__).parents[3] / "docs" / "serving.md"


@pytest.fixture(scope="module")
def target(augmented):
    with running(augmented, **LIMITS) as made:
        yield made


def attacked(port: int, attacks) -> list[tuple[Attack, int, bytes]]:
    with concurrent.futures.ThreadPoolExecutor(24) as pool:
        return [(one, *found) for one, found in zip(attacks, pool.map(lambda a: answer(port, a), attacks))]


def openai_shape(body: bytes) -> bool:
    error = json.loads(body)["error"]
    return set(error) == {"message", "type", "param", "code"} and len(error["message"]) < 500


@pytest.mark.slow
def test_the_server_outlives_all_of_them(target, capfd, caplog):
    attacks = corpus()
    assert len(attacks) >= 200 and len({(one.kind, one.name) for one in attacks}) == len(attacks)
    found = attacked(target.port, attacks)
    wrong = [(one.kind, one.name, status, body[:200]) for one, status, body in found if status not in one.right]
    assert wrong == []
    shapeless = [
        (one.name, body) for one, status, body in found
        if status >= 400 and "HEAD" != one.name and not openai_shape(body)
    ]  # fmt: skip
    assert shapeless == []
    first = memory()
    attacked(target.port, attacks)
    assert memory() - first < 40e6, "what was taken once is used again"
    until = time.monotonic() + 10
    while target.server.server_state.connections and time.monotonic() < until:
        time.sleep(0.05)
    assert not target.server.server_state.connections and not target.server.server_state.tasks
    assert (target.inside.engine.waiting, target.inside.memory.held, target.inside.engine.alive) == (0, 0, True)
    made = target.client().chat.completions.create(
        model="tiny", messages=asking(QUESTION, tiny.picture("red")), max_tokens=2
    )
    assert "red" in made.moai["verbalized"]
    written = "".join(capfd.readouterr()) + caplog.text
    assert "Traceback" not in written and "base64" not in written and "Why?" not in written


def memory() -> int:
    gc.collect()
    return psutil.Process().memory_info().rss


def test_the_page_counts_them():
    rows = re.findall(
        r"^\| ([a-zA-Z ]+) \| (\d+) \|",
        PAGE.read_text(encoding="utf-8").partition("## Hostile")[2].partition("\n## ")[0],
        re.MULTILINE,
    )
    counts = collections.Counter(one.kind for one in corpus())
    assert {kind: int(count) for kind, count in rows} == {**counts, "together": sum(counts.values())}
