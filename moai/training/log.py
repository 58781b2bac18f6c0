"""The training log: one JSON line per step.

Knows: files. On resume, lines behind the checkpoint are dropped, because those steps are run again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
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


def headline(values: Mapping[str, Any]) -> str:
    """Say a step's losses in a line of progress."""
    text = f"loss {values['loss']:.3f}" if "loss" in values else f"attention {values['attention']:.3f}"
    if "attention_validation" in values:
        text += f", validation {values['attention_validation']:.3f}"
    if "loss_on" in values:
        text += f", on {values['loss_on']:.3f} / shuffled {values['loss_shuffled']:.3f}, spread {values['spread']:.2f}"
    return text
