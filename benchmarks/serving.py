"""``python benchmarks/serving.py RUN``: many clients at once against `moai serve`, beside `ask` one by one.

Knows: a run folder, and the split that its recipe evaluates on: its pictures and questions are what is asked. Each
answer of the server is compared with what ``ask`` answered to the same question alone, and each perception, too.
"""

from __future__ import annotations

import argparse
import base64
import http.client
import io
import json
import os
import re
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

TARGET = 1.5  # answers per second of the server over those of `ask` one by one
FLAT = 64 * 2**20  # bytes that the server may grow by in the second half of the time
WARM = 0.5  # of the time, after which memory is compared


@dataclass(frozen=True)
class Question:
    """One picture, one question about it, and what ``ask`` answered alone."""

    picture: Any
    text: str
    truth: tuple[str, ...]
    answer: str = ""
    words: str = ""


@dataclass
class Load:
    """Collect what clients saw.

    Attributes:
        seconds: of each answer, in the order of their ends.
        wrong: answers, or perceptions, that differ from those of ``ask``.
        errors: what was raised, in words.
        memory: bytes of the server, with the time of each measurement since the start.
        cpu: seconds of CPU that the server used.
        elapsed: seconds from the first request to the last answer.
    """

    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    memory: list[tuple[float, int]] = field(default_factory=list)
    cpu: float = 0.0
    elapsed: float = 0.0

    @property
    def growth(self) -> int:
        """Bytes that the server grew by after it was warm."""
        warm = [size for at, size in self.memory if at >= WARM * self.elapsed]
        return warm[-1] - warm[0] if warm else 0


def questions_of(run: Path, count: int) -> list[Question]:
    """Choose questions of the evaluated split, from as many pictures as there are."""
    from moai.evaluation.evaluate import dataset_of, recipe_of
    from moai.images import read_image

    recipe = recipe_of(run)
    by_image: dict[str, list[Any]] = {}
    for sample in dataset_of(recipe, recipe.evaluation.split):
        if len(sample.images) == 1 and not sample.choices:
            by_image.setdefault(sample.image_ids[0], []).append(sample)
    rounds, own = max(map(len, by_image.values()), default=0), list(by_image.values())
    # Of each picture another of its questions, since the first ones are alike.
    turned = [[*one[at % len(one) :], *one[: at % len(one)]] for at, one in enumerate(own)]
    chosen = [one[turn] for turn in range(rounds) for one in turned if turn < len(one)][:count]
    pictures = {sample.image_ids[0]: read_image(sample.images[0]) for sample in chosen}
    return [Question(pictures[one.image_ids[0]], one.question, one.answers) for one in chosen]


@dataclass(frozen=True)
class Alone:
    """Hold what ``ask`` took, one by one: seconds of each answer, and of CPU for all of them."""

    seconds: list[float]
    cpu: float


def ask_alone(run: Any, questions: Sequence[Question], tokens: int, seconds: float) -> tuple[list[Question], Alone]:
    """Answer all questions one by one, which caches their perceptions; then time the same again."""
    answered = []
    for one in questions:
        found = run.ask(one.picture, one.text, max_new_tokens=tokens)
        answered.append(Question(one.picture, one.text, one.truth, found.text, found.verbalized))
    taken: list[float] = []
    until, cpu = time.monotonic() + seconds, time.process_time()
    while time.monotonic() < until:
        one, began = questions[len(taken) % len(questions)], time.monotonic()
        run.ask(one.picture, one.text, max_new_tokens=tokens)
        taken.append(time.monotonic() - began)
    return answered, Alone(taken, time.process_time() - cpu)


def ask_together(
    base: str, model: str, questions: Sequence[Question], tokens: int, clients: int, seconds: float, usage: Any
) -> Load:
    """Let clients ask in a closed loop: each asks again as soon as it has its answer.

    ``usage`` returns the server's bytes and seconds of CPU.
    """
    load, began = Load(), time.monotonic()
    bodies = [_body(one, model, tokens) for one in questions]  # written once: clients should cost little

    def client(number: int) -> None:
        connection, at = http.client.HTTPConnection(urlsplit(base).netloc, timeout=120), number
        while time.monotonic() - began < seconds:
            one, start = questions[at % len(questions)], time.monotonic()
            status, made = _post(connection, bodies[at % len(questions)])
            if status != 200:
                load.errors.append(f"{status}: {made['error']['message']}")
                continue
            load.seconds.append(time.monotonic() - start)
            found = (made["choices"][0]["message"]["content"], made["moai"]["verbalized"])
            if found != (one.answer, one.words):
                load.wrong.append(f"{one.text} {found[0]!r}, alone {one.answer!r}")
            at += clients
        connection.close()

    threads = [threading.Thread(target=client, args=(number,)) for number in range(clients)]
    _, cpu = usage()
    for thread in threads:
        thread.start()
    while any(thread.is_alive() for thread in threads):
        load.memory.append((time.monotonic() - began, usage()[0]))
        time.sleep(min(1.0, seconds / 20))
    load.elapsed, load.cpu = time.monotonic() - began, usage()[1] - cpu
    return load


def _post(connection: http.client.HTTPConnection, body: bytes) -> tuple[int, dict[str, Any]]:
    """Send one request; what breaks on the way is status 0."""
    try:
        connection.request("POST", "/v1/chat/completions", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())
    except (OSError, http.client.HTTPException) as error:
        connection.close()
        return 0, {"error": {"message": f"{type(error).__name__}: {error}"}}


def _body(one: Question, model: str, tokens: int) -> bytes:
    buffer = io.BytesIO()
    one.picture.save(buffer, "PNG")
    url = f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"
    parts = [{"type": "image_url", "image_url": {"url": url}}, {"type": "text", "text": one.text}]
    asked = {"model": model, "messages": [{"role": "user", "content": parts}], "max_tokens": tokens}
    return json.dumps(asked).encode()


def table(questions: Sequence[Question], alone: Alone, load: Load, clients: int) -> tuple[str, bool]:
    """Return the table in Markdown, and whether every target is met."""
    pictures = len({id(one.picture) for one in questions})
    counts, took = (len(alone.seconds), len(load.seconds)), (sum(alone.seconds), load.elapsed)
    rates = counts[0] / took[0], counts[1] / took[1]
    cpu = alone.cpu / counts[0], load.cpu / max(1, counts[1])
    right = sum(one.answer.lower() in {truth.lower() for truth in one.truth} for one in questions)
    good = not load.errors and not load.wrong and rates[1] >= TARGET * rates[0] and load.growth < FLAT
    median = [statistics.median(seconds) if seconds else float("nan") for seconds in (alone.seconds, load.seconds)]
    slow = statistics.quantiles(load.seconds, n=20)[-1] if len(load.seconds) > 1 else float("nan")
    rows = [
        f"| | `ask` one by one | `moai serve`, {clients} clients |",
        "| --- | --- | --- |",
        f"| answers | {counts[0]} in {took[0]:.0f} s | {counts[1]} in {took[1]:.0f} s |",
        f"| answers per second | {rates[0]:.2f} | {rates[1]:.2f} ({rates[1] / rates[0]:.2f} times) |",
        f"| median seconds per answer | {median[0]:.2f} | {median[1]:.2f}; 95 % below {slow:.2f} |",
        f"| seconds of CPU per answer | {cpu[0]:.2f} | {cpu[1]:.2f} |",
        f"| errors, wrong answers | | {len(load.errors)}, {len(load.wrong)} |",
        f"| memory, and growth in the second half | | {load.memory[-1][1] / 2**20:.0f} MiB, "
        f"{load.growth / 2**20:+.0f} MiB |",
        "",
        f"{len(questions)} questions about {pictures} pictures, {len({one.answer for one in questions})} different "
        f"answers, {right} answers the truth; wrong is what differs from the answer, or its perception, alone.",
    ]
    return "\n".join(rows), good


class Served:
    """`moai serve` in a process of its own, until the block ends."""

    def __init__(self, run: Path, options: Sequence[str]) -> None:
        self.command = [sys.executable, "-m", "moai.cli.main", "serve", str(run), "--port", "0", "--quiet", *options]

    def __enter__(self) -> Served:
        import psutil

        self.process = subprocess.Popen(self.command, stdout=subprocess.PIPE, text=True)
        line = self.process.stdout.readline()
        found = re.fullmatch(r"serving (.+) at (http://\S+)\n", line)
        if found is None:
            raise SystemExit(f"the server did not start: {line}")
        self.model, self.base = found.groups()
        self.seen = psutil.Process(self.process.pid)
        return self

    def usage(self) -> tuple[int, float]:
        """Its resident bytes, and its seconds of CPU so far."""
        used = self.seen.cpu_times()
        return self.seen.memory_info().rss, used.user + used.system

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait(60)


def main(given: list[str] | None = None) -> int:
    """Measure, print one table, and keep it; exit code 1 where a target is missed."""
    parser = argparse.ArgumentParser(description="Load `moai serve`, beside `ask` one by one.")
    parser.add_argument("run", type=Path, help="a run folder whose recipe has a split to evaluate on")
    parser.add_argument("--clients", type=int, default=64, help="at once [64]")
    parser.add_argument("--seconds", type=float, default=60, help="of load; `ask` gets half of it [60]")
    parser.add_argument("--questions", type=int, default=128, help="different ones [128]")
    parser.add_argument("--tokens", type=int, default=16, help="of an answer at most [16]")
    parser.add_argument(
        "--dtype", default="float32", help="of the host; in float32 a batch changes no number [float32]"
    )
    parser.add_argument("--device", default="cpu", help="[cpu]")
    parser.add_argument("--serve", nargs="*", default=[], metavar="OPTION", help="further options of moai serve")
    parser.add_argument("--json", type=Path, default=Path("runs/serving.json"), help="[runs/serving.json]")
    options = parser.parse_args(given)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported
    import moai

    opening = {"dtype": options.dtype, "device": options.device}
    questions, alone = ask_alone(
        moai.load(options.run, **opening),
        questions_of(options.run, options.questions),
        options.tokens,
        options.seconds / 2,
    )
    with Served(options.run, ["--dtype", options.dtype, "--device", options.device, *options.serve]) as served:
        load = ask_together(served.base, served.model, questions, options.tokens, options.clients, options.seconds,
                            served.usage)  # fmt: skip
    shown, good = table(questions, alone, load, options.clients)
    print(shown)
    for line in [*dict.fromkeys(load.errors), *dict.fromkeys(load.wrong)][:10]:
        print(line, file=sys.stderr)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    kept = {
        "alone": alone.seconds,
        "together": load.seconds,
        "errors": load.errors,
        "wrong": load.wrong,
        "memory": load.memory,
    }
    options.json.write_text(json.dumps({"run": str(options.run), "clients": options.clients, **kept}))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
