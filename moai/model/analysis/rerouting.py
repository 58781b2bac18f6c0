"""Test-time re-routing: the gates of one prompt, moved by what similar and solved samples would have wanted of theirs.

Knows: tensors, and the file in which solved samples are recorded. After R2-T2 (arXiv 2502.20395), reduced to what a
small machine can do: one step of kernel-weighted neighbourhood gradient descent. R2-T2 runs every neighbour again for
each step of each test sample. Here the step is taken in a shift of the gates' logits that is zero for every sample
before it; there the gradient of a neighbour's loss does not depend on the test sample, so it is computed once and
recorded, and the first step is exact. There is no second one. No weight changes, and a row depends on itself and the
record only.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from moai.assets.replacing import replacing
from moai.errors import CheckpointError, HostError, RecipeError
from moai.model.mixer.graft import decoder_layers, states_entering
from moai.model.run_folder import save_tensors

FOLDER = "rerouting"  # in a run folder
FILES = ("record.safetensors", "record.json")


class Record(NamedTuple):
    """Solved samples."""

    states: Tensor  # (N, D) as question_states gives them
    gradients: Tensor  # (N, mixers, 2, 3) as gate_gradients gives them
    about: dict[str, Any]  # where they come from; JSON types


class Rerouting:
    """Shifts of the gates' logits for prompts that resemble recorded samples.

    Args:
        record: at least one sample.
        neighbours: ``K``, the samples that count. Their kernel (Epanechnikov) falls to zero at the distance of sample
            ``K + 1``, so that no rounding error decides who is a neighbour; a record of ``K`` or fewer counts as a
            whole and alike. 0 changes nothing.
        strength: the step in logits: what the gates are shifted by (root mean square) where the neighbours agree and
            are as unsure as recorded samples are on average; the most a shift has. Surer neighbours, and those that
            contradict each other, move the gates less. 0 changes nothing.

    Raises:
        RecipeError: a number below zero, or an empty record.
    """

    def __init__(self, record: Record, neighbours: int, strength: float = 1.0) -> None:
        self.check(neighbours, strength)
        if not len(record.states):
            raise RecipeError("no sample was solved, so there is nothing to re-route by; record more samples")
        self.record, self.neighbours, self.strength = record, neighbours, strength
        self.mean = record.states.mean(dim=0)
        self.keys = self._keys(record.states)
        self.scale = record.gradients.square().mean().sqrt()

    @staticmethod
    def check(neighbours: int, strength: float) -> None:
        """Raise RecipeError unless both are at least 0."""
        if not (neighbours >= 0 and strength >= 0):
            raise RecipeError("re-routing takes a number of neighbours and a strength of at least 0")

    def shift(self, states: Tensor) -> Tensor | None:
        """``(B, D) -> (B, mixers, 2, 3)`` for the model's ``gate_shift``; ``None`` where nothing is to be changed."""
        if not self.neighbours or not self.strength or self.scale == 0:
            return None
        weights, chosen = self.nearest(states.to(self.keys.device))
        gradients = self.record.gradients[chosen]  # (B, K, mixers, 2, 3)
        step = (weights[..., None, None, None] * gradients).sum(dim=1) / self.scale
        size = step.square().mean(dim=(1, 2, 3), keepdim=True).sqrt()
        return -self.strength * step / size.clamp(min=1)

    def nearest(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Kernel weights that sum to one, and the samples they belong to, both ``(B, K)``."""
        count = len(self.keys)
        exact = "donot_use_mm_for_euclid_dist"  # row by row: the same whatever else is in the batch
        distances = torch.cdist(self._keys(states), self.keys, compute_mode=exact)  # (B, N)
        near, chosen = distances.topk(min(self.neighbours + 1, count), largest=False)
        if count <= self.neighbours:
            kernel = torch.ones_like(near)
        else:
            near, reach, chosen = near[:, :-1], near[:, -1:], chosen[:, :-1]
            kernel = 1 - (near / reach.clamp(min=torch.finfo(near.dtype).tiny)).square()
            kernel = torch.where(kernel.sum(dim=1, keepdim=True) > 0, kernel, 1.0)  # all equally far
        return kernel / kernel.sum(dim=1, keepdim=True), chosen

    def to(self, device: torch.device | str) -> Rerouting:
        """The same on another device."""
        record = self.record._replace(states=self.record.states.to(device), gradients=self.record.gradients.to(device))
        return Rerouting(record, self.neighbours, self.strength)

    def _keys(self, states: Tensor) -> Tensor:
        """Directions from the recorded mean: a residual stream's few huge dimensions are alike in all prompts."""
        return nn.functional.normalize(states.float() - self.mean, dim=-1)


def question_states(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    """What tells prompts apart: the mean over the question's tokens of the states that enter the host's middle layer.

    There the host has read the question, and the mixers below have brought in what the image and the perception have
    to say to it; further up the states turn into the next word, further down they are words alone.

    Args:
        model: a ``MoaiForConditionalGeneration`` with mixers.
        inputs: prompts, as ``forward`` takes them, without answers; ``gate_shift`` is not used.

    Returns:
        ``(B, D)`` in fp32.
    """
    layers = decoder_layers(model.host)
    given = {name: value for name, value in inputs.items() if name != "gate_shift"}
    # There is no conditioning while the host only reads the auxiliary words in context.
    prompted = lambda: model.holder.conditioning is not None  # noqa: E731
    states = states_entering(layers[len(layers) // 2], lambda: model(**given, use_cache=False), prompted)
    c = model.holder.conditioning
    if c is None or not len(model.mixers):
        raise HostError("this run has no mixers, so there are no gates to re-route")
    index, mask = c.language_index, c.language_mask[..., None]
    states = states.gather(1, index[..., None].expand(-1, -1, states.shape[2])).float()
    return (states * mask).sum(dim=1) / mask.sum(dim=1).clamp(min=1)


def gate_gradients(model: nn.Module, batch: dict[str, Tensor]) -> Tensor:
    """The gradient of each row's loss (mean over its answer tokens) in the logits of its gates.

    Args:
        model: in evaluation mode, with mixers.
        batch: with ``labels``, as the collator makes it.

    Returns:
        ``(B, mixers, 2, 3)``: image and language gate, modules in the order of ``IMAGE_MODULES``; each sums to zero.
    """
    labels = batch["labels"]
    shift = torch.zeros(len(labels), len(model.mixers), 2, 3, device=labels.device, requires_grad=True)
    with torch.enable_grad():
        loss = model(**batch, gate_shift=shift, use_cache=False).loss
        [gradient] = torch.autograd.grad(loss, shift)
    counts = (labels != -100).sum(dim=1)
    # The loss is a mean over all answer tokens of the batch, and each row's part depends on its own shift only.
    return gradient * (counts.sum() / counts.clamp(min=1))[:, None, None, None]


def save_record(record: Record, run_dir: str | Path) -> Path:
    """Write the record into a run folder, the tensors first; returns its folder."""
    folder = Path(run_dir) / FOLDER
    folder.mkdir(parents=True, exist_ok=True)
    save_tensors({"states": record.states, "gradients": record.gradients}, folder / FILES[0])
    with replacing(folder / FILES[1]) as part:
        part.write_text(json.dumps(record.about, indent=2) + "\n")
    return folder


def load_record(run_dir: str | Path) -> Record:
    """Read what ``save_record`` wrote.

    Raises:
        CheckpointError: there is none, and what makes it; or it is damaged.
    """
    folder = Path(run_dir) / FOLDER
    if not all((folder / name).is_file() for name in FILES):
        raise CheckpointError(f"{run_dir} has no record of solved samples; `moai eval {run_dir} --reroute 8` makes it")
    try:
        tensors, about = load_file(folder / FILES[0]), json.loads((folder / FILES[1]).read_text())
        return Record(tensors["states"], tensors["gradients"], about)
    except (OSError, ValueError, KeyError, SafetensorError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); delete it, and evaluate with --reroute again") from None
