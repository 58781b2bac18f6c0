"""Starting on a large file: seconds to the first step, memory, rows parsed, and going on in the middle of an epoch.

Knows: processes. Each training runs in one of its own, on the tiny host of the tests, and is stopped after a step.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

MANY, FEW = 1_000_000, 1_000  # rows
START, RESUME, MEMORY = 30.0, 15.0, 300.0  # seconds, seconds, MB over the small file
BATCH = 16
TESTS = Path(__file__).parents[1] / "tests"


def run(quick: bool, repeats: int) -> list[Any]:
    """Seconds and megabytes; ``quick`` takes a tenth of the rows."""
    from measure import Row

    many = MANY // 10 if quick else MANY
    with tempfile.TemporaryDirectory() as folder:
        large = measure(Path(folder) / "large", many)
        small = measure(Path(folder) / "small", FEW)
        again = go_on(Path(folder) / "large", many // BATCH // 2)
    over = large["megabytes"] - small["megabytes"]
    title = f"training on {many:,} rows"
    return [
        Row(f"{title}, to the first step, file not indexed yet", large["seconds"], START, True, "s", detail=large),
        Row(f"{title}, going on in the middle of the epoch", again["seconds"], RESUME, True, "s", detail=again),
        Row(f"{title}, peak memory over {FEW:,} rows", over, MEMORY, True, "MB", detail={"small": small}),
    ]


def measure(folder: Path, rows: int) -> dict[str, float]:
    """Train one step on a new file: ``seconds``, ``cpu_seconds``, peak ``megabytes`` and rows ``parsed``."""
    folder.mkdir(parents=True)
    with open(folder / "rows.jsonl", "w") as file:
        for number in range(rows):
            words = "red blue green black " * (number % 5 + 1)
            row = {"question": f"What is number {number}? {words}", "answer": words.split()[number % 4]}
            file.write(json.dumps(row) + "\n")
    (folder / "validation.jsonl").write_text('{"question": "What is it?", "answer": "red"}\n' * 4)
    return _child(folder, resume=False)


def go_on(folder: Path, step: int) -> dict[str, float]:
    """Go on after ``step``: the checkpoint of step 1 is renumbered, so that the steps before need not be trained."""
    [old] = (folder / "run" / "checkpoints").iterdir()
    state = json.loads((old / "state.json").read_text())
    (old / "state.json").write_text(json.dumps({**state, "step": step, "stage_step": step}))
    old.rename(old.with_name(f"step-{step:07d}"))
    return _child(folder, resume=True)


def _child(folder: Path, resume: bool) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder), *(["--resume"] if resume else [])]
    environment = {**os.environ, "MOAI_CACHE": str(folder / "cache"), "MOAI_STARTED": str(time.time())}
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    if done.returncode:
        raise RuntimeError(done.stderr[-2000:])
    return json.loads(done.stdout.splitlines()[-1])


class _Stopped(Exception):
    """Enough steps were done."""


def _train(folder: Path, resume: bool) -> dict[str, float]:
    """Train two steps, the first of which is measured."""
    import resource
    from contextlib import contextmanager

    sys.path.insert(0, str(TESTS))
    import tiny

    from moai.data import records
    from moai.training.progress import Progress
    from moai.training.trainer import train

    found: dict[str, float] = {}
    parse, parsed = records.parse_row, [0]

    def counted(*given: Any) -> Any:
        parsed[0] += 1
        return parse(*given)

    class Stopping(Progress):
        @contextmanager
        def bar(self, description: str, total: int, done: int = 0) -> Any:
            yield self.advance

        def advance(self, count: int, note: str = "") -> None:
            if found:
                raise _Stopped
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
            seconds = time.time() - float(os.environ["MOAI_STARTED"])
            busy = round(time.process_time(), 2)
            found.update(seconds=round(seconds, 2), cpu_seconds=busy, megabytes=round(peak, 1), parsed=parsed[0])

    records.parse_row = counted
    paths = {"train": str(folder / "rows.jsonl"), "validation": str(folder / "validation.jsonl")}
    stage = {"name": "gates", "epochs": 1, "train": {"mixers": 1e-3, "gates": 1e-3}}
    if not resume:
        tiny.write_assets(folder / "assets")
    recipe = tiny.recipe(
        folder / "assets",
        perception={"experts": []},
        data={"sources": [{"format": "jsonl", "path": paths}], "validation_limit": 4},
        training={"batch_size": BATCH, "checkpoint_every": 1, "monitor_every": 10**9},
        stages=[stage],
    )
    try:
        train(recipe, folder / "run", resume=resume, progress=Stopping())
    except _Stopped:
        return found
    raise RuntimeError("the run ended before it was measured")


if __name__ == "__main__":
    print(json.dumps(_train(Path(sys.argv[1]), "--resume" in sys.argv)))
