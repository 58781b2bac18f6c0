"""Training checkpoints: everything that a killed run needs to go on as if nothing had happened.

Knows: files. No pickles: tensors go to safetensors, the rest to JSON. A checkpoint is written beside the last one and
renamed into place, so a kill at any moment leaves a whole one. Random state needs no saving, since every draw is a
function of the seed and the step (``steps``).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from moai.assets.hashes import sha256_file
from moai.errors import CheckpointError

FOLDER = "checkpoints"


def save_checkpoint(run_dir: Path, step: int, parameters: dict[str, torch.nn.Parameter], optimizer) -> None:
    """Save the adapters and the optimizer after ``step`` optimisation steps; older checkpoints are removed."""
    root = run_dir / FOLDER
    final, part = root / f"step-{step:07d}", root / f"step-{step:07d}.part"
    shutil.rmtree(part, ignore_errors=True)
    part.mkdir(parents=True)
    tensors = {f"parameter.{name}": p.detach() for name, p in parameters.items()}
    for name, p in parameters.items():
        for key, value in optimizer.state.get(p, {}).items():
            tensors[f"optimizer.{key}.{name}"] = torch.as_tensor(value)
    save_file({name: t.contiguous().cpu() for name, t in tensors.items()}, part / "state.safetensors")
    state = {"step": step, "sha256": sha256_file(part / "state.safetensors")}
    (part / "state.json").write_text(json.dumps(state) + "\n")
    shutil.rmtree(final, ignore_errors=True)
    part.rename(final)
    for old in root.iterdir():
        if old != final:
            shutil.rmtree(old, ignore_errors=True)


def load_checkpoint(run_dir: Path, parameters: dict[str, torch.nn.Parameter], optimizer) -> int:
    """Restore the last checkpoint and return its step; 0 when there is none.

    Raises:
        CheckpointError: damaged, or of another model.
    """
    folders = sorted(path for path in (run_dir / FOLDER).glob("step-*") if path.suffix != ".part")
    if not folders:
        return 0
    folder = folders[-1]
    step, tensors = _read(folder)
    saved = {name.removeprefix("parameter."): t for name, t in tensors.items() if name.startswith("parameter.")}
    if {name: t.shape for name, t in saved.items()} != {name: p.shape for name, p in parameters.items()}:
        raise CheckpointError(f"{folder} belongs to another recipe; use another run folder")
    with torch.no_grad():
        for name, p in parameters.items():
            p.copy_(saved[name])
            kept = {key: tensors.get(f"optimizer.{key}.{name}") for key in ("step", "exp_avg", "exp_avg_sq")}
            if kept["step"] is not None:
                # Copied, since what was read is a view of the mapped file, which the next checkpoint removes.
                optimizer.state[p] = {k: v.clone() if k == "step" else v.to(p, copy=True) for k, v in kept.items()}
    return step


def _read(folder: Path) -> tuple[int, dict[str, torch.Tensor]]:
    try:
        state = json.loads((folder / "state.json").read_text())
        if sha256_file(folder / "state.safetensors") != state["sha256"]:
            raise ValueError("its SHA-256 is not the recorded one")
        return int(state["step"]), load_file(folder / "state.safetensors")
    except (OSError, ValueError, KeyError, TypeError, SafetensorError, CheckpointError) as error:
        raise CheckpointError(f"{folder} is damaged ({error}); remove it to start from the beginning") from None
