"""``python benchmarks/gpu.py``: what moai costs on one GPU, as Markdown tables and a JSON, in at most eight minutes.

Knows: which parts there are, and the clock. Each part runs in a process of its own, which is ended at its limit: what
it has measured until then is kept, and one that fails takes nothing from the others. The time that a part leaves goes
to those after it.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

# Part -> module and function, the subject, and the part's share of the time.
PARTS: dict[str, tuple[str, str, str, float]] = {
    "agreement": ("gpu_training", "agree", "tiny", 1.5),
    "train-1B": ("gpu_training", "train", "1B", 2),
    "train-7B": ("gpu_training", "train", "7B", 3),
    "train-7B-NF4": ("gpu_training", "train", "7B NF4", 3),
    "answer-1B": ("gpu_answering", "answer", "1B", 4),
    "answer-7B": ("gpu_answering", "answer", "7B", 4),
}
SOFT = 0.8  # share of a part's limit after which it begins nothing new
GIB = 2**30


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description="Measure moai on one GPU: training, memory, answering, agreement.")
    parser.add_argument("parts", nargs="*", metavar="PART", help=f"which of {', '.join(PARTS)} [all]")
    parser.add_argument("--device", default="cuda", help="cuda, cuda:1, or cpu, which only shows that it runs [cuda]")
    parser.add_argument("--tiny", action="store_true", help="toy shapes")
    parser.add_argument("--minutes", type=float, default=8.0, help="of all parts together [8]")
    parser.add_argument("--out", type=Path, default=Path("runs/gpu.json"), help="[runs/gpu.json]")
    parser.add_argument("--ends", type=float, help=argparse.SUPPRESS)  # of a part's own process: when its limit is
    made = parser.parse_args(given)
    unknown = [name for name in made.parts if name not in PARTS]
    if unknown:
        parser.error(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    if not made.minutes > 0:
        parser.error("--minutes must be above 0")
    made.parts = made.parts or list(PARTS)
    return made


def main(given: list[str] | None = None) -> int:
    """Measure, print, keep; exit code 1 where a part failed."""
    options = arguments(given)
    if options.ends is not None:
        measure(options)
        return 0
    ends = time.time() + 60 * options.minutes
    results: list[dict[str, Any]] = []
    setting: dict[str, str] | None = None
    for number, name in enumerate(options.parts):
        weights = [PARTS[other][3] for other in options.parts[number:]]
        limit = max(0.0, ends - time.time()) * weights[0] / sum(weights)
        results.append(run_part(name, limit, options))
        shown, setting = setting, setting or results[-1]["setting"]
        if setting and not shown:
            print("\n".join(f"- {key}: {value}" for key, value in setting.items()))
        print("\n" + "\n".join(markdown(results[-1])), flush=True)
        kept = [{k: v for k, v in one.items() if k != "setting"} for one in results]
        options.out.parent.mkdir(parents=True, exist_ok=True)
        options.out.write_text(json.dumps({"setting": setting, "parts": kept}, indent=2) + "\n")
    return 1 if any(one["ended"].startswith("failed") for one in results) else 0


def run_part(name: str, limit: float, options: argparse.Namespace) -> dict[str, Any]:
    """Run a part in a process of its own for at most ``limit`` seconds, and return what it measured until it ended."""
    started = time.time()
    command = [sys.executable, str(Path(__file__)), name, "--device", options.device, "--ends", str(started + limit)]
    command += ["--tiny"] if options.tiny else []
    with tempfile.TemporaryFile("w+") as lines, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=lines, stderr=errors, env={**os.environ, "PYTHONUNBUFFERED": "1"})
        try:
            code = process.wait(timeout=limit)
            ended = "whole" if code == 0 else f"failed with exit code {code}"
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            ended = "stopped at its limit"
        except BaseException:
            process.kill()
            raise
        lines.seek(0)
        errors.seek(0)
        found = list(read_rows(lines))
        said = errors.read().strip().splitlines()
    if ended.startswith("failed"):
        ended += f": {said[-1] if said else 'it said nothing'}"
    setting = next((row["setting"] for row in found if "setting" in row), None)
    rows = [row for row in found if "setting" not in row]
    return {
        "part": name, "limit": round(limit, 1), "seconds": round(time.time() - started, 1), "ended": ended,
        "rows": rows, "setting": setting,
    }  # fmt: skip


def read_rows(lines: Iterable[str]) -> Iterable[dict[str, Any]]:
    """Read the rows that a part printed; other lines are a library's, and the last may be cut."""
    for line in lines:
        if line.startswith("{") and line.endswith("}\n"):
            yield json.loads(line)


# In a part's own process ---------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace) -> None:
    """Print the rows of one part as JSON lines, as they come."""
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    device = torch.device(options.device)
    if device.type == "cuda" and not torch.cuda.is_available():
        sys.exit("torch finds no GPU; install a torch with CUDA, or see that it runs by --device cpu --tiny")
    print(json.dumps({"setting": facts(device)}), flush=True)
    module, function, subject, _ = PARTS[options.parts[0]]
    until = time.monotonic() + SOFT * (options.ends - time.time())
    for row in getattr(importlib.import_module(module), function)(subject, device, options.tiny, until):
        print(json.dumps(row), flush=True)


def facts(device: Any) -> dict[str, str]:
    """Say what the figures depend on."""
    import torch
    import transformers

    made = {"card": "none: a CPU, whose times say nothing of a GPU's"}
    if device.type == "cuda":
        about = torch.cuda.get_device_properties(device)
        free = torch.cuda.mem_get_info(device)[0]
        made = {"card": f"{about.name}, {about.total_memory / GIB:.0f} GiB, {free / GIB:.1f} free at the start"}
        made["CUDA"] = str(torch.version.cuda)
    return {**made, "torch": torch.__version__, "transformers": transformers.__version__}


# Tables --------------------------------------------------------------------------------------------------------------

COLUMNS: dict[str, dict[str, str]] = {  # of each table: the heading of each key of a row
    "agreement": {
        "steps": "steps, both stages", "first": "first loss apart", "tolerance_first": "tolerance",
        "largest": "largest apart", "tolerance": "tolerance",
    },
    "memory": {"model": "model", "what": "memory", "planned": "moai plan", "measured": "measured", "ratio": "ratio"},
    "training": {
        "model": "model", "stage": "stage", "samples": "batch", "tokens_per_second": "tokens/s",
        "connector_only": "connector-only, tokens/s", "ratio": "time over connector-only", "steps": "steps timed",
    },
    "answering": {
        "model": "model", "what": "what", "mode": "mode", "ours_ms": "augmented, ms", "bare_ms": "bare host, ms",
        "ratio": "ratio", "timed": "timed",
    },
}  # fmt: skip


def markdown(result: dict[str, Any]) -> list[str]:
    """Return a part's tables, then what was left out, then how it ended."""
    lines = [f"### {result['part']}", ""]
    for table, columns in COLUMNS.items():
        rows = [row for row in result["rows"] if row.get("table") == table]
        if rows:
            lines += ["| " + " | ".join(columns.values()) + " |", "| " + " | ".join("---" for _ in columns) + " |"]
            lines += ["| " + " | ".join(cell(key, row.get(key)) for key in columns) + " |" for row in rows]
            lines.append("")
    lines += [f"- {row['note']}" for row in result["rows"] if "note" in row]
    return [*lines, f"- {result['seconds']:.0f} of at most {result['limit']:.0f} s; {result['ended']}"]


def cell(key: str, value: Any) -> str:
    """Write one value; bytes as GiB, and what was not measured as a dash."""
    if value is None:
        return "-"
    if key in ("planned", "measured"):
        return f"{value / GIB:.2f} GiB" if value >= GIB / 100 else f"{value / 2**20:.2f} MiB"
    if key in ("first", "largest", "tolerance", "tolerance_first"):
        return f"{value:.1e}"
    if isinstance(value, float):
        return f"{value:,.0f}" if value >= 1000 else f"{value:.2f}"
    return str(value)


if __name__ == "__main__":
    sys.exit(main())
