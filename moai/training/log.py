"""The training log: one JSON line per step, and its picture.

Knows: files. On resume, lines behind the checkpoint are dropped, because those steps are run again.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from moai.assets.replacing import replacing
from moai.errors import CheckpointError

NAME = "training.jsonl"


class TrainingLog:
    """Appends lines to ``training.jsonl`` in a run folder."""

    def __init__(self, run_dir: Path, keep_until: int) -> None:
        """Open the log and keep only the lines of steps up to ``keep_until``."""
        self.path = run_dir / NAME
        kept = [line for line in read_log(run_dir) if line["step"] <= keep_until]
        with replacing(self.path) as part:
            part.write_text("".join(json.dumps(line) + "\n" for line in kept))

    def write(self, **values: Any) -> None:
        """Append one line.

        Raises:
            CheckpointError: it cannot be written.
        """
        try:
            with self.path.open("a") as file:
                file.write(json.dumps(values) + "\n")
        except OSError as error:
            raise CheckpointError(
                f"{self.path} cannot be written ({error}); make room, and go on with --resume"
            ) from None


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    """All whole lines of a run's log; a line cut off by a kill is left out."""
    path = run_dir / NAME
    lines = []
    for text in path.read_text().splitlines() if path.is_file() else []:
        try:
            lines.append(json.loads(text))
        except json.JSONDecodeError:  # the line that was being written when the run was killed
            break
    return lines


def draw_curves(run_dir: Path, starts: Sequence[int] = ()) -> Path:
    """Draw the losses, the on-minus-shuffled loss and the compressor's spread to ``curves.png``.

    Args:
        run_dir: the run.
        starts: the steps after which a stage begins; marked in the picture.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    lines = read_log(run_dir)
    losses = [(line["step"], line["loss"]) for line in lines if "loss" in line]
    seen = [line for line in lines if "spread" in line]
    figure = Figure(figsize=(8, 9), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    looked = [(line["step"], line["attention"]) for line in lines if "attention" in line]
    if looked:
        steps, values = zip(*looked, strict=True)
        top.plot(steps, _smooth(values), color="C1", label="attention, moving average")
        held_out = [line for line in lines if "attention_validation" in line]
        if held_out:
            at, values = [line["step"] for line in held_out], [line["attention_validation"] for line in held_out]
            top.plot(at, values, "o--", color="C1", markersize=3, label="attention, validation questions")
        top.legend()
    if losses:
        steps, values = zip(*losses, strict=True)
        top.plot(steps, values, color="0.8", linewidth=0.8, label="each step")
        top.plot(steps, _smooth(values), color="C0", label="moving average")
        top.legend()
    top.set(title=f"{run_dir.name}: training loss", ylabel="cross-entropy (nats per answer token)")
    at = [line["step"] for line in seen]
    for name, color in (("on", "C0"), ("shuffled", "C3"), ("off", "C7")):
        middle.plot(at, [line[f"loss_{name}"] for line in seen], "o-", color=color, label=f"perception {name}")
    middle.legend()
    middle.set(title="validation loss: only the distance from 'shuffled' shows that perception is read", ylabel="nats")
    bottom.plot(at, [line["spread"] for line in seen], "o-", color="C2")
    bottom.set(
        title="compressor: spread across samples / overall spread (0 = a constant)", xlabel="step", ylim=(0, None)
    )
    for axis in (top, middle, bottom):
        for start in starts:
            axis.axvline(start, color="0.5", linestyle="--", linewidth=0.8)
        axis.grid(alpha=0.3)
    path = run_dir / "curves.png"
    with replacing(path) as part:
        figure.savefig(part, dpi=120, format="png")
    return path


def _smooth(values, window: int = 15) -> list[float]:
    return [sum(values[max(0, i - window + 1) : i + 1]) / min(window, i + 1) for i in range(len(values))]
