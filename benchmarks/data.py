"""Starting on a large file: seconds to the first step, memory, rows parsed, and going on in the middle of an epoch.

Knows: processes. Each training runs in one of its own, on the tiny host of the tests, and is stopped after a step. The
file is JSON lines, or Parquet, which the library ``datasets`` reads. Alone: ``python benchmarks/data.py hf 1000000``.
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
        parquet = [measure(Path(folder) / f"parquet-{rows}", rows, "hf") for rows in (FEW, many)]
    over = large["megabytes"] - small["megabytes"]
    title = f"training on {many:,} rows"
    return [
        Row(f"{title}, to the first step, file not indexed yet", large["seconds"], START, True, "s", detail=large),
        Row(f"{title}, going on in the middle of the epoch", again["seconds"], RESUME, True, "s", detail=again),
        Row(f"{title}, peak memory over {FEW:,} rows", over, MEMORY, True, "MB", detail={"small": small}),
        *parquet_rows(f"training on {many:,} rows of Parquet", *parquet),
    ]


def parquet_rows(title: str, small: dict[str, float], large: dict[str, float]) -> list[Any]:
    """Seconds and megabytes of a large Parquet file beside a small one."""
    from measure import Row

    over = large["megabytes"] - small["megabytes"]
    return [
        Row(f"{title}, to the first step, file not read yet", large["seconds"], START, True, "s", detail=large),
        Row(f"{title}, peak memory over {FEW:,} rows", over, MEMORY, True, "MB", detail={"small": small}),
    ]


def measure(folder: Path, rows: int, format: str = "jsonl") -> dict[str, float]:
    """Train one step on a new file of a format, ``jsonl`` or ``hf``.

    Returns:
        ``seconds`` to the first step, of which ``sample`` to the first sample; ``cpu_seconds``, peak ``megabytes`` and
        rows ``parsed``.
    """
    folder.mkdir(parents=True)
    if format == "hf":
        _write_parquet(folder / "rows.parquet", rows)
        _write_parquet(folder / "validation.parquet", 4)
        return _child(folder, resume=False)
    with open(folder / "rows.jsonl", "w") as file:
        for number in range(rows):
            file.write(json.dumps(_row(number)) + "\n")
    (folder / "validation.jsonl").write_text('{"question": "What is it?", "answer": "red"}\n' * 4)
    return _child(folder, resume=False)


def _row(number: int) -> dict[str, str]:
    words = "red blue green black " * (number % 5 + 1)
    return {"question": f"What is number {number}? {words}", "answer": words.split()[number % 4]}


def _write_parquet(path: Path, rows: int) -> None:
    import pyarrow
    from pyarrow.parquet import ParquetWriter

    schema = pyarrow.schema({"question": pyarrow.string(), "answer": pyarrow.string()})
    with ParquetWriter(path, schema) as writer:
        for start in range(0, rows, 100_000):
            part = [_row(number) for number in range(start, min(start + 100_000, rows))]
            writer.write_table(pyarrow.Table.from_pylist(part, schema=schema))


def go_on(folder: Path, step: int) -> dict[str, float]:
    """Go on after ``step``: the checkpoint of step 1 is renumbered, so that the steps before need not be trained."""
    [old] = (folder / "run" / "checkpoints").iterdir()
    state = json.loads((old / "state.json").read_text())
    (old / "state.json").write_text(json.dumps({**state, "step": step, "stage_step": step}))
    old.rename(old.with_name(f"step-{step:07d}"))
    return _child(folder, resume=True)


def _child(folder: Path, resume: bool) -> dict[str, float]:
    command = [sys.executable, __file__, str(folder), *(["--resume"] if resume else [])]
    own = {"MOAI_CACHE": str(folder / "cache"), "HF_HOME": str(folder / "hub"), "MOAI_STARTED": str(time.time())}
    environment = {**os.environ, **own}
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

    from moai.data import records, samples
    from moai.training.progress import Progress
    from moai.training.trainer import train

    found: dict[str, float] = {}
    parse, parsed = records.parse_row, [0]
    read, first = samples.LazySamples.__getitem__, []

    def counted(*given: Any) -> Any:
        parsed[0] += 1
        return parse(*given)

    def timed(self: Any, index: Any) -> Any:
        sample = read(self, index)
        first.append(time.time()) if not first else None
        return sample

    class Stopping(Progress):
        @contextmanager
        def bar(self, description: str, total: int, done: int = 0) -> Any:
            yield self.advance

        def advance(self, count: int, note: str = "") -> None:
            if found:
                raise _Stopped
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1 << 20 if sys.platform == "darwin" else 1024)
            started, busy = float(os.environ["MOAI_STARTED"]), round(time.process_time(), 2)
            found.update(seconds=round(time.time() - started, 2), sample=round(first[0] - started, 2))
            found.update(cpu_seconds=busy, megabytes=round(peak, 1), parsed=parsed[0])

    records.parse_row, samples.LazySamples.__getitem__ = counted, timed
    format, ending = ("hf", "parquet") if (folder / "rows.parquet").exists() else ("jsonl", "jsonl")
    paths = {"train": str(folder / f"rows.{ending}"), "validation": str(folder / f"validation.{ending}")}
    stage = {"name": "gates", "epochs": 1, "train": {"mixers": 1e-3, "gates": 1e-3}}
    if not resume:
        tiny.write_assets(folder / "assets")
    recipe = tiny.recipe(
        folder / "assets",
        perception={"experts": []},
        data={"sources": [{"format": format, "path": paths}], "validation_limit": 4},
        training={"batch_size": BATCH, "checkpoint_every": 1, "monitor_every": 10**9},
        stages=[stage],
    )
    try:
        train(recipe, folder / "run", resume=resume, progress=Stopping())
    except _Stopped:
        return found
    raise RuntimeError("the run ended before it was measured")


if __name__ == "__main__":
    if sys.argv[1] in ("jsonl", "hf"):
        with tempfile.TemporaryDirectory() as made:
            for count in (FEW, int(sys.argv[2])):
                print(json.dumps({"rows": count, **measure(Path(made) / str(count), count, sys.argv[1])}), flush=True)
    else:
        print(json.dumps(_train(Path(sys.argv[1]), "--resume" in sys.argv)))
