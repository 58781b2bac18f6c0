"""Two-stage training on a GPU: steps against connector-only training of the same host, memory against ``moai plan``,
and losses against those of a CPU.

Knows: forward, backward and AdamW, as a stage does them; the loop around them is not measured.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Iterator
from typing import Any

import torch
from gpu_subjects import Subject, augmented, batch, fitting, free_memory, random_host, sizes, subject, synced
from measure import in_turns, ratio, spread
from torch import Tensor, nn

from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.parts import parts_of
from moai.training.memory_plan.plan import Plan
from moai.training.sampling import draw_modules

GIB = 2**30
STAGES = {  # what each trains, and whether it draws one module of three
    "connector-only": (("connector",), False),
    "stage 1, modules": (("connector", "compressor", "mixers"), True),
    "stage 2, gates": (("connector", "compressor", "mixers", "gates"), False),
}
STEPS, RATE, CLIP = 30, 1e-4, 1.0
AGREEMENT_STEPS = 10  # of each stage
FIRST, LATER = 1e-4, 2e-3  # tolerances of a loss: of the first step, and of all steps
Rows = Iterator[dict[str, Any]]


class Step:
    """One optimisation step of one stage, again and again. Several stages may take turns on one model."""

    def __init__(self, model: MoaiForConditionalGeneration, inputs: dict[str, Tensor], stage: str) -> None:
        parts, self.draws = STAGES[stage]
        named = parts_of(model)
        self.model, self.done = model, 0
        self.augments = "mixers" in parts
        self.inputs = inputs if self.augments else {k: v for k, v in inputs.items() if not k.startswith("aux_")}
        self.parameters = [p for part in parts for p in named[part].values()]
        self.adapters = list(model.adapter_parameters().values())
        self._own = {id(p) for p in self.parameters}
        self.optimizer = torch.optim.AdamW(self.parameters, lr=RATE, fused=True)

    def backward(self) -> Tensor:
        """Compute the loss and its gradients."""
        for parameter in self.adapters:
            parameter.requires_grad_(id(parameter) in self._own)
        self.model.mixed = self.augments  # without mixers the host runs as it is
        given = dict(self.inputs)
        if self.draws:
            given["module_choices"] = draw_modules(0, self.done, len(self.model.mixers))
        loss = self.model(**given, use_cache=False).loss
        loss.backward()
        return loss.detach()

    def update(self) -> None:
        """Clip the gradients, change the weights, and drop the gradients."""
        nn.utils.clip_grad_norm_(self.parameters, CLIP)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.done += 1

    def __call__(self) -> Tensor:
        loss = self.backward()
        self.update()
        return loss


def train(name: str, device: torch.device, tiny: bool, until: float) -> Rows:
    """Yield the memory of a training step, and its time in both stages against connector-only training."""
    one = subject(name, tiny)
    if one.missing:
        yield {"note": f"{name}: skipped, {one.missing}"}
        return
    made, free = one.plan(), free_memory(device)
    fits = fitting(made, one.rows, free)
    if fits is None:
        needs, there = made.training(1, True) / GIB, free / GIB
        yield {"note": f"{name}, training: skipped, it needs {needs:.1f} GiB by moai plan, and {there:.1f} are free"}
        return
    rows, checkpointed = fits
    model = augmented(one, random_host(one, device), device)
    if checkpointed:
        model.activation_checkpointing_enable()
    inputs = batch(one, model.train(), rows)
    about = f"{rows} samples a step" + (", activations checkpointed" if checkpointed else "")
    try:
        yield from _memory(one, made, model, inputs, rows, checkpointed)
        yield from _times(name, model, inputs, about, device, until)
    except torch.OutOfMemoryError:
        yield {"note": f"{name}, training: out of memory with {about}, which moai plan said fit"}


def _memory(
    one: Subject, made: Plan, model: Any, inputs: dict[str, Tensor], rows: int, checkpointed: bool
) -> Rows:  # fmt: skip
    """Yield each part's bytes beside the plan's; of activations only a GPU's allocator knows."""
    step = Step(model, inputs, "stage 2, gates")
    device = step.parameters[0].device
    step()
    cuda = device.type == "cuda"
    settled = torch.cuda.memory_allocated(device) if cuda else None
    if cuda:
        torch.cuda.reset_peak_memory_stats(device)
    step.backward()
    modules = {"host": model.host, "vision": model.images.vision, **model.adapters()}
    for part in made.parts:
        parameters = list(modules[part.name].parameters())
        states = [s for p in parameters for s in step.optimizer.state.get(p, {}).values() if s.ndim]
        found = {
            "weights": sizes(parameters), "gradients": sizes(p.grad for p in parameters), "moments": sizes(states)
        }  # fmt: skip
        planned = {"weights": part.weights, "gradients": part.gradients, "moments": part.optimizer}
        for kind, value in found.items():
            if value or planned[kind]:
                yield _bytes(one, f"{part.name}, {kind}", planned[kind], value)
    step.update()
    kept = sum(part.weights + part.optimizer for part in made.parts)
    peak = torch.cuda.max_memory_allocated(device) if cuda else None
    yield _bytes(one, "between two steps, all that is allocated", kept, settled)
    how = "checkpointed" if checkpointed else "not checkpointed"
    yield _bytes(one, f"peak of a step of {rows}, {how}", made.training(rows, checkpointed), peak)


def _bytes(one: Subject, what: str, planned: int, found: int | None) -> dict[str, Any]:
    cells = {"model": one.name, "what": what, "planned": planned, "measured": found}
    return {"table": "memory", **cells, "ratio": None if found is None else found / planned if planned else None}


def _times(
    name: str, model: Any, inputs: dict[str, Tensor], about: str, device: torch.device, until: float
) -> Rows:  # fmt: skip
    """Yield each stage's time against connector-only training, in turns; each has half of the time that is left."""
    tokens = inputs["input_ids"].numel()
    base = synced(Step(model, inputs, "connector-only"), device)
    stages = [stage for stage in STAGES if stage != "connector-only"]
    for number, stage in enumerate(stages):
        now = time.monotonic()
        ends = now + (until - now) / (len(stages) - number)
        slow, fast = in_turns(synced(Step(model, inputs, stage), device), base, STEPS, until=ends)
        yield {
            "table": "training", "model": name, "stage": stage, "samples": about,
            "tokens_per_second": tokens / statistics.median(slow),
            "connector_only": tokens / statistics.median(fast),
            "ratio": ratio(slow, fast), "steps": len(slow), "detail": [spread(slow), spread(fast)],
        }  # fmt: skip


def agree(name: str, device: torch.device, tiny: bool, until: float) -> Rows:
    """Yield how far a tiny model's losses in fp32 are from a CPU's over both stages.

    Raises:
        AssertionError: they are further apart than the tolerance.
    """
    torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
    given = vars(subject("1B", tiny=True)) | {"dtype": "float32", "name": name}
    here, there = (_losses(Subject(**given), place) for place in (torch.device("cpu"), device))
    apart = [abs(a - b) for a, b in zip(here, there, strict=True)]
    yield {
        "table": "agreement", "steps": len(apart), "first": apart[0], "largest": max(apart),
        "tolerance_first": FIRST, "tolerance": LATER, "fell_by": here[0] - here[-1],
    }  # fmt: skip
    if not (apart[0] <= FIRST and max(apart) <= LATER):
        raise AssertionError(f"losses differ from a CPU's by {apart[0]:.2e} at first and {max(apart):.2e} at most")


def _losses(one: Subject, device: torch.device) -> list[float]:
    """Return the loss of each step of both stages, on batches of their own; weights are drawn on a CPU."""
    cpu = torch.device("cpu")
    model = augmented(one, random_host(one, cpu), cpu).to(device).train()
    losses = []
    for number, stage in enumerate(name for name in STAGES if name != "connector-only"):
        step = Step(model, {}, stage)
        step.optimizer.param_groups[0]["lr"] = 1e-2  # so that the weights move, and differences would show
        for turn in range(AGREEMENT_STEPS):
            step.inputs = batch(one, model, one.rows, seed=100 * number + turn)
            losses.append(float(step()))
    return losses
