"""``python benchmarks/run.py``: the table of ratios, each measured side by side in this run, and a JSON beside it.

Knows: which benchmarks there are. Each can be run alone by its name.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import platform
import sys
import time
from pathlib import Path

GROUPS = {
    "mixing": "one mixer against the published loop over samples",
    "answering": "prefill and decoding against the bare host",
    "training": "a training step against connector-only training: time and memory",
    "starting": "import, help, loading",
    "data": "training on 1,000,000 rows: to the first step, going on, memory",
    "corpus": "perceiving shards: the runner over the expert, two workers over one",
}


def arguments(given: list[str] | None = None) -> argparse.Namespace:
    """The command line."""
    listed = "; ".join(f"{name}: {text}" for name, text in GROUPS.items())
    parser = argparse.ArgumentParser(description="Measure moai against its references, in turns.", epilog=listed)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"which of {', '.join(GROUPS)} [all]")
    parser.add_argument("--quick", action="store_true", help="smaller batches: to see that it runs")
    parser.add_argument("--repeats", type=int, default=None, help="measurements of each side [5; 3 with --quick]")
    parser.add_argument("--threads", type=int, default=None, help="CPU threads [all cores]")
    parser.add_argument("--against", metavar="REV", help="with training alone: easy-vqa's steps in that revision")
    parser.add_argument("--steps", type=int, default=30, help="with --against: steps of each turn [30]")
    parser.add_argument("--json", type=Path, default=Path("runs/benchmarks.json"), help="[runs/benchmarks.json]")
    made = parser.parse_args(given)
    unknown = [name for name in made.names if name not in GROUPS]
    if unknown:
        parser.error(f"no benchmark '{unknown[0]}'; there are {', '.join(GROUPS)}")
    if made.repeats is not None and made.repeats < 1:
        parser.error("--repeats must be at least 1")
    if made.against is not None and (made.names != ["training"] or made.steps < 1):
        parser.error("--against REV is for training alone, with at least one step: run.py training --against REV")
    made.names = made.names or list(GROUPS)
    made.repeats = made.repeats or (3 if made.quick else 5)
    made.threads = made.threads or os.cpu_count()
    if made.against is not None and made.repeats < 2:
        parser.error("--against needs at least --repeats 2: one turn of each has no interval")
    return made


def main(given: list[str] | None = None) -> int:
    """Measure, print, keep; exit code 1 where a target is missed."""
    options = arguments(given)
    os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # before torch is imported
    os.environ.setdefault("PILLOW_BLOCKS_MAX", "32")  # before Pillow is: as in perceive-dataset
    import torch
    from transformers.utils import logging

    logging.disable_progress_bar()
    torch.set_num_threads(options.threads)
    print(setting(options))
    rows = []
    for name in options.names:
        started = time.perf_counter()
        for row in measured(name, options):
            rows.append(row)
            print(line(row), flush=True)
        print(f"  {name}: {time.perf_counter() - started:.0f} s", file=sys.stderr)
    options.json.parent.mkdir(parents=True, exist_ok=True)
    options.json.write_text(json.dumps({"setting": setting(options), "rows": [r.to_dict() for r in rows]}, indent=2))
    return 0 if all(row.passed for row in rows) else 1


def measured(name: str, options: argparse.Namespace) -> list:
    """Measure one benchmark."""
    if options.against is None:
        return importlib.import_module(name).run(options.quick, options.repeats)
    from measure import Row
    from training_against import TARGET, compare

    found = compare(options.against, options.steps, options.repeats, options.threads)
    low, high = found["interval"]
    text = f"training step over {options.against:.12}, {low:.3f} to {high:.3f}"
    return [Row(text, found["ratio"], TARGET, at_most=True, detail=found)]


def setting(options: argparse.Namespace) -> str:
    """What the figures depend on."""
    import torch

    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    return (
        f"{platform.machine()}, {options.threads} threads of {os.cpu_count()} cores, load {load:.1f}, "
        f"torch {torch.__version__}, {options.repeats} repeats in turns, medians{', quick' if options.quick else ''}\n"
        f"{'':<60}{'measured':>10}{'target':>12}{'operations':>12}"
    )


def line(row) -> str:
    """One row; ``operations`` is the ratio that counting them gives."""
    target = f"{'<=' if row.at_most else '>='} {row.target:g} {row.unit}".rstrip()
    floor = "" if row.floor is None else f"{row.floor:.2f} x"
    value = f"{row.value:.2f} {row.unit}" if row.unit else ("yes" if row.value else "no")
    target = target if row.unit else "yes"
    return f"{row.name:<60}{value:>10}{target:>12}{floor:>12}  {'pass' if row.passed else 'MISS'}"


if __name__ == "__main__":
    sys.exit(main())
