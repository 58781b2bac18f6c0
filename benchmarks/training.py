"""A training step against connector-only training of the same host and batch: time, operations, peak memory.

Knows: forward and backward. Run as a file it takes the steps of one kind and prints its own peak memory, so that one
kind's memory is never counted for the other.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
from pathlib import Path

import torch
from measure import Row, in_turns, operations, ratio, spread
from subjects import augmented, batch

TIME, MEMORY = 1.35, 1.25
KINDS = {"augmented": None, "connector-only": []}  # layers with a mixer: every 8th, or none


def size(quick: bool) -> dict[str, int]:
    """Rows and tokens of a step."""
    return {"rows": 2 if quick else 8, "image": 64, "prompt": 32, "answer": 4}


class Step:
    """One optimisation step of one kind of training, again and again on one batch."""

    def __init__(self, kind: str, shape: str, quick: bool) -> None:
        s = size(quick)
        self.model = augmented(shape, s["image"], KINDS[kind]).train()
        self.inputs = batch(shape, aux=128 if KINDS[kind] is None else 0, **s)
        parts = self.model.adapters()
        trained = [parts["connector"]] if KINDS[kind] == [] else parts.values()
        self.optimizer = torch.optim.AdamW([p for part in trained for p in part.parameters()], lr=1e-4, fused=True)

    def __call__(self) -> None:
        self.model(**self.inputs).loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)

    def check(self) -> dict[str, bool]:
        """What makes a step cheap, looked at rather than believed."""
        answers = self.inputs["labels"].ne(-100).sum(dim=1).max()
        embedded, reached = [], []
        hooks = [
            self.model.get_input_embeddings().register_forward_hook(lambda m, a, out: embedded.append(out)),
            self.model.images.vision.register_forward_hook(lambda m, a, out: reached.append(out.patches)),
        ]
        output = self.model(**self.inputs)
        output.loss.backward()
        for hook in hooks:
            hook.remove()
        self.optimizer.zero_grad(set_to_none=True)
        frozen = [*self.model.host.parameters(), *self.model.images.vision.parameters()]
        return {
            "no backward below the first trainable part": not any(t.requires_grad for t in [*embedded, *reached])
            and all(p.grad is None for p in frozen),
            "logits only at answer positions": output.logits.shape[1] == int(answers) + 1,
        }


def run(quick: bool, repeats: int) -> list[Row]:
    """Time, the two checks, and memory."""
    steps = {kind: Step(kind, "smollm2", quick) for kind in KINDS}
    checks = steps["augmented"].check()
    counted = {kind: operations(step) for kind, step in steps.items()}
    slow, fast = in_turns(*steps.values(), repeats)
    rows = [
        Row(
            "training step: augmented over connector-only", ratio(slow, fast), TIME, at_most=True,
            floor=counted["augmented"] / counted["connector-only"],
            detail={"augmented": spread(slow), "connector-only": spread(fast), "operations": counted, **size(quick)},
        )
    ]  # fmt: skip
    rows += [Row(f"training step: {name}", float(held), 1, at_most=False, unit="") for name, held in checks.items()]
    peaks = {kind: _peak(kind, quick) for kind in KINDS}
    value = peaks["augmented"] / peaks["connector-only"]
    return [*rows, Row("training step, peak memory over connector-only", value, MEMORY, at_most=True, detail=peaks)]


def _peak(kind: str, quick: bool) -> int:
    command = [sys.executable, str(Path(__file__)), kind, json.dumps(quick), str(torch.get_num_threads())]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])


if __name__ == "__main__":
    torch.set_num_threads(int(sys.argv[3]))
    taken = Step(sys.argv[1], "smollm2", json.loads(sys.argv[2]))
    for _ in range(2):
        taken()
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
