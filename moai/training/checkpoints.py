"""Training checkpoints: everything that a killed run needs to go on as if nothing had happened.

Knows: files. No pickles: tensors go to safetensors, the rest to JSON. A checkpoint is written beside the last one and
renamed into place, so a kill at any moment, or a full disk, leaves a whole one. Random state needs no saving, since
every draw is a function of the seed and the step (``sampling``).
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from moai.assets.hashes import sha256_file
from moai.errors import CheckpointError
from moai.training.sharding import shard_like

FOLDER = "checkpoints"

Moments = dict[str, dict[str, Tensor]]  # parameter's name -> what the optimizer keeps of it


@dataclass
class Checkpoint:
    """A place in a run: the stage, how many of its steps are done, and the tensors."""

    step: int  # of the whole run
    stage: str
    stage_step: int
    parameters: dict[str, Tensor]
    moments: Moments = field(default_factory=dict)
    data: str = ""  # hash of the samples that the run draws from


def save_checkpoint(run_dir: Path, checkpoint: Checkpoint) -> None:
    """Save a checkpoint; older ones are removed.

    Raises:
        CheckpointError: it cannot be written; the one before is still there.
    """
    root = run_dir / FOLDER
    final = root / f"step-{checkpoint.step:07d}"
    part = final.with_suffix(".part")
    tensors = {f"parameter.{name}": tensor for name, tensor in checkpoint.parameters.items()}
    for name, moments in checkpoint.moments.items():
        tensors |= {f"optimizer.{key}.{name}": torch.as_tensor(value) for key, value in moments.items()}
    state = {name: getattr(checkpoint, name) for name in ("step", "stage", "stage_step", "data")}
    try:
        shutil.rmtree(part, ignore_errors=True)
        part.mkdir(parents=True)
        save_file({name: t.detach().contiguous().cpu() for name, t in tensors.items()}, part / "state.safetensors")
        state["sha256"] = sha256_file(part / "state.safetensors")
        (part / "state.json").write_text(json.dumps(state) + "\n")
        shutil.rmtree(final, ignore_errors=True)
        part.rename(final)
    except (OSError, SafetensorError) as error:
        shutil.rmtree(part, ignore_errors=True)
        raise CheckpointError(
            f"the checkpoint of step {checkpoint.step} cannot be written to {root} ({error}); make room, and go on "
            "with --resume: the checkpoint before it is whole"
        ) from None
    for old in root.iterdir():
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(run_dir: Path) -> Checkpoint | None:
    """Read the last checkpoint of a run; None where there is none.

    Raises:
        CheckpointError: it is damaged.
    """
    folders = sorted(path for path in (run_dir / FOLDER).glob("step-*") if path.suffix != ".part")
    if not folders:
        return None
    folder = folders[-1]
    try:
        state = json.loads((folder / "state.json").read_text())
        if sha256_file(folder / "state.safetensors") != state["sha256"]:
            raise ValueError("its SHA-256 is not the recorded one")
        tensors = load_file(folder / "state.safetensors")
        found = Checkpoint(
            int(state["step"]), str(state["stage"]), int(state["stage_step"]), {}, {}, str(state["data"])
        )
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, CheckpointError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); remove it to start from the beginning") from None
    for name, tensor in tensors.items():
        kind, _, rest = name.partition(".")
        # Copied, since what was read is a view of the mapped file, which the next checkpoint removes.
        if kind == "parameter":
            found.parameters[rest] = tensor.clone()
        else:
            key, _, parameter = rest.partition(".")
            found.moments.setdefault(parameter, {})[key] = tensor.clone()
    return found


def check_data(checkpoint: Checkpoint, digest: str, run_dir: Path) -> None:
    """Refuse to go on with other samples than those that the checkpoint's run drew from.

    Raises:
        CheckpointError: names the fix.
    """
    if checkpoint.data != digest:
        raise CheckpointError(
            f"the training data is not what it was when {run_dir} was started (other rows, texts or image names); "
            "restore it, or train in another folder"
        )


def restore(checkpoint: Checkpoint, parameters: Mapping[str, torch.nn.Parameter], run_dir: Path) -> None:
    """Put a checkpoint's weights into the model's parameters.

    Raises:
        CheckpointError: they are those of another model.
    """
    shapes = {name: tensor.shape for name, tensor in checkpoint.parameters.items()}
    if shapes != {name: p.shape for name, p in parameters.items()}:
        raise CheckpointError(f"{run_dir / FOLDER} belongs to another recipe; use another run folder")
    with torch.no_grad():
        for name, parameter in parameters.items():
            parameter.copy_(checkpoint.parameters[name])


def moments_of(optimizer: torch.optim.Optimizer, names: Mapping[int, str]) -> Moments:
    """Read what an optimizer keeps of each parameter; ``names`` by the parameter's ``id``.

    Raises:
        CheckpointError: it keeps more than tensors and numbers.
    """
    found: Moments = {}
    for parameter, kept in optimizer.state.items():
        for key, value in kept.items():
            if not isinstance(value, (Tensor, int, float)):
                raise CheckpointError(
                    f"{type(optimizer).__name__} keeps '{key}', which no checkpoint can hold; "
                    "choose another training.trainer.optim, such as adamw_torch_fused"
                )
            found.setdefault(names[id(parameter)], {})[key] = torch.as_tensor(value)
    return found


def restore_moments(optimizer: torch.optim.Optimizer, names: Mapping[int, str], moments: Moments) -> None:
    """Put moments back, of those parameters that the optimizer has."""
    state: dict[str, Any] = optimizer.state_dict()
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    for number, parameter in enumerate(parameters):
        if kept := moments.get(names[id(parameter)]):
            state["state"][number] = {key: shard_like(value, parameter) for key, value in kept.items()}
    optimizer.load_state_dict(state)
