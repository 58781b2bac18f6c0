"""The command as a process: what SIGTERM lets end, and the load benchmark in small."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import tiny
from running_server import QUESTION, asking, running

BENCHMARKS = Path(__file__).parents[3] / "benchmarks"
# A process of its own has no expert of the tests, so that the run has none.
OPTIONS = {"perception": {"experts": []}, "host": {"chat_template": "question_answer"}}


@pytest.fixture(scope="module")
def run_dir(tmp_path_factory):
    model, processor = tiny.made(**OPTIONS)
    folder = tmp_path_factory.mktemp("serving") / "tiny"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder


@pytest.mark.slow
def test_sigterm_finishes_what_runs(run_dir):
    openai = pytest.importorskip("openai", reason="the openai client is not installed: pip install openai")
    command = [sys.executable, "-m", "moai.cli.main", "serve", str(run_dir), "--port", "0", "--device", "cpu"]
    environment = {**os.environ, "MOAI_API_KEY": "a-long-secret"}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        line = process.stdout.readline()
        name, base = re.fullmatch(r"serving (\S+) at (http://127.0.0.1:\d+/v1)\n", line).groups()
        client = openai.OpenAI(base_url=base, api_key="a-long-secret", max_retries=0)
        asked = {"model": name, "messages": asking(QUESTION, tiny.picture("red")), "max_tokens": 150}
        expected = client.chat.completions.create(**asked).choices[0].message.content
        found = []

        def ask() -> None:
            found.append(client.chat.completions.create(**asked).choices[0].message.content)

        stream = client.chat.completions.create(**asked, stream=True)
        first = next(stream)  # it runs
        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        server, end = psutil.Process(process.pid), time.monotonic() + 60
        while sum(one.status == "ESTABLISHED" for one in server.net_connections()) < 5:
            assert time.monotonic() < end, "not all clients are connected"
            time.sleep(0.01)
        next(stream)
        process.send_signal(signal.SIGTERM)
        rest = "".join(chunk.choices[0].delta.content or "" for chunk in [first, *stream] if chunk.choices)
        for thread in threads:
            thread.join(60)
        assert expected.endswith(rest) and len(rest) > len(expected) // 2
        assert set(found) == {expected} and len(found) == 4
        _, written = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    assert "Traceback" not in written and "secret" not in written and written.count("answered in") == 6
    with pytest.raises(openai.APIConnectionError):
        client.models.list()


@pytest.mark.slow
def test_clients_for_five_seconds_beside_ask_alone(augmented, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serving

    asked = [
        serving.Question(tiny.picture(color, shape), question, ())
        for color in tiny.COLORS
        for shape in ("ellipse", "rectangle")
        for question in (QUESTION, "Is there a red shape in it?")
    ]
    questions, alone = serving.ask_alone(augmented, asked, 12, 2.0)
    with running(augmented) as made:
        load = serving.ask_together(
            made.base, "tiny", questions, 12, 8, 5.0, lambda: (psutil.Process().memory_info().rss, 0.0)
        )
    shown, _ = serving.table(questions, alone, load, 8)
    assert load.errors == [] and load.wrong == [] and len(load.seconds) > 20
    assert load.growth < serving.FLAT and load.elapsed < 20
    assert "| errors, wrong answers | | 0, 0 |" in shown and len({one.answer for one in questions}) > 4


def test_the_benchmark_sees_what_is_wrong(augmented, monkeypatch):
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    import serving

    wrong = [serving.Question(tiny.picture("red"), QUESTION, (), "an answer of another", "red")]
    with running(augmented, max_tokens=8) as made:
        load = serving.ask_together(made.base, "tiny", wrong, 4, 1, 0.05, lambda: (1, 0.0))
        refused = serving.ask_together(made.base, "tiny", wrong, 9, 1, 0.05, lambda: (1, 0.0))
    assert len(load.wrong) == len(load.seconds) > 0 and "alone 'an answer of another'" in load.wrong[0]
    assert refused.errors and refused.errors[0].startswith("400: an answer of 9 tokens") and not refused.seconds
    assert serving.table(wrong, serving.Alone([1.0], 1.0), load, 1)[1] is False
