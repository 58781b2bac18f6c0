"""What moai adds to each step of ``Trainer``: seeds, and an orderly end when the process is asked to stop.

Knows: transformers' callbacks and signals.
"""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import reduce
from transformers import TrainerCallback

from moai.training.sampling import step_seed


class StepSeed(TrainerCallback):
    """Seeds torch before each step, so that what draws inside the model does so by the step alone."""

    def __init__(self, seed: int, rank: int) -> None:
        self.seed, self.rank = seed, rank

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Seed by the number of the step in the run."""
        torch.manual_seed(step_seed(self.seed, state.global_step, self.rank))


class StopOnSignal(TrainerCallback):
    """Ends a stage with a checkpoint after the step in which SIGTERM came, in all processes after the same one."""

    def __init__(self, world: int) -> None:
        self.world, self.asked, self.stopped = world, False, False

    def ask(self, *_: Any) -> None:
        """Handle the signal."""
        self.asked = True

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Stop here where any process was asked to."""
        asked = self.asked
        if self.world > 1:
            asked = bool(reduce(torch.tensor(int(asked), device=PartialState().device), "sum"))
        if asked:
            self.stopped = control.should_save = control.should_training_stop = True


@contextmanager
def terminable(stop: StopOnSignal) -> Iterator[None]:
    """Let SIGTERM end the block in an orderly way, where this thread may say so."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, stop.ask)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
