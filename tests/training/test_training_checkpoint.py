"""Training checkpoints: parameters and optimizer come back exactly, and damage is named."""

import json

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from moai.assets.hashes import sha256_file
from moai.errors import CheckpointError
from moai.training.checkpoints import Checkpoint, moments_of, restore, restore_moments
from moai.training.checkpoints import load_checkpoint as read
from moai.training.checkpoints import save_checkpoint as write


def fresh(seed=0):
    torch.manual_seed(seed)
    parameters = {name: nn.Parameter(torch.randn(shape)) for name, shape in {"a": (3, 4), "b": 5, "c": 2}.items()}
    groups = [{"params": [parameters["a"], parameters["c"]], "lr": 0.1}, {"params": [parameters["b"]], "lr": 0.01}]
    return parameters, torch.optim.AdamW(groups, fused=True)


def save_checkpoint(run_dir, step, parameters, optimizer):
    moments = moments_of(optimizer, {id(p): name for name, p in parameters.items()})
    write(run_dir, Checkpoint(step, "gates", step, dict(parameters), moments))


def load_checkpoint(run_dir, parameters, optimizer):
    found = read(run_dir)
    if found is None:
        return 0
    restore(found, parameters, run_dir)
    restore_moments(optimizer, {id(p): name for name, p in parameters.items()}, found.moments)
    assert (found.stage, found.stage_step) == ("gates", found.step)
    return found.step


def work(parameters, optimizer, steps, start=0):
    """Steps with a gradient for ``a`` and ``b`` only: step 1 leaves modules without any."""
    for step in range(start, start + steps):
        generator = torch.Generator().manual_seed(step)
        for name in ("a", "b"):
            parameters[name].grad = torch.randn(parameters[name].shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def test_training_goes_on_exactly(tmp_path):
    parameters, optimizer = fresh()
    work(parameters, optimizer, 3)
    save_checkpoint(tmp_path, 3, parameters, optimizer)
    work(parameters, optimizer, 4, start=3)
    twin, other = fresh(seed=1)
    assert load_checkpoint(tmp_path, twin, other) == 3
    work(twin, other, 4, start=3)
    assert all(torch.equal(twin[name], p) for name, p in parameters.items())
    assert parameters["c"] not in other.state, "a parameter that never had a gradient has no state to restore"


def test_what_was_loaded_has_memory_of_its_own(tmp_path):
    """Not a view of the file: that is removed at the next checkpoint, and its tensors are aligned by chance."""
    parameters, optimizer = fresh()
    work(parameters, optimizer, 2)
    save_checkpoint(tmp_path, 2, parameters, optimizer)
    twin, other = fresh(seed=1)
    load_checkpoint(tmp_path, twin, other)
    state = [tensor for p in (twin["a"], twin["b"]) for tensor in other.state[p].values()]
    assert len(state) == 6 and all(tensor.untyped_storage().nbytes() == tensor.nbytes for tensor in state)
    assert not any(tensor.data_ptr() % 64 for tensor in state)


def test_nothing_to_load(tmp_path):
    assert load_checkpoint(tmp_path, *fresh()) == 0


def test_only_the_last_one_is_kept(tmp_path):
    parameters, optimizer = fresh()
    for step in (9, 10, 11):
        save_checkpoint(tmp_path, step, parameters, optimizer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000011"]


def test_half_of_a_newer_one_is_ignored(tmp_path):
    parameters, optimizer = fresh()
    save_checkpoint(tmp_path, 4, parameters, optimizer)
    part = tmp_path / "checkpoints" / "step-0000006.part"
    part.mkdir()
    (part / "state.safetensors").write_bytes(b"half")
    assert load_checkpoint(tmp_path, *fresh()) == 4
    save_checkpoint(tmp_path, 6, parameters, optimizer)
    assert load_checkpoint(tmp_path, *fresh()) == 6


def test_the_same_step_can_be_saved_again(tmp_path):
    parameters, optimizer = fresh()
    save_checkpoint(tmp_path, 4, parameters, optimizer)
    with torch.no_grad():
        parameters["a"].add_(1)
    save_checkpoint(tmp_path, 4, parameters, optimizer)
    twin, other = fresh(seed=1)
    load_checkpoint(tmp_path, twin, other)
    assert torch.equal(twin["a"], parameters["a"])


def test_a_full_disk_leaves_the_checkpoint_before(tmp_path, monkeypatch):
    parameters, optimizer = fresh()
    work(parameters, optimizer, 1)
    save_checkpoint(tmp_path, 3, parameters, optimizer)

    def full(tensors, path):
        path.write_bytes(b"half")
        raise SafetensorError("I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("moai.training.checkpoints.save_file", full)
    with pytest.raises(CheckpointError, match="of step 4 cannot be written.*No space left.*go on with --resume"):
        save_checkpoint(tmp_path, 4, parameters, optimizer)
    assert [path.name for path in (tmp_path / "checkpoints").iterdir()] == ["step-0000003"]
    assert load_checkpoint(tmp_path, *fresh()) == 3


def test_an_optimizer_with_other_state_is_refused():
    parameters, optimizer = fresh()
    optimizer.state[parameters["a"]]["history"] = ["x"]
    with pytest.raises(CheckpointError, match="AdamW keeps 'history', which no checkpoint can hold"):
        moments_of(optimizer, {id(p): name for name, p in parameters.items()})


@pytest.fixture
def folder(tmp_path):
    parameters, optimizer = fresh()
    work(parameters, optimizer, 1)
    save_checkpoint(tmp_path, 3, parameters, optimizer)
    return tmp_path / "checkpoints" / "step-0000003"


def flip(path):
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


DAMAGE = {
    "state.safetensors missing": lambda folder: (folder / "state.safetensors").unlink(),
    "state.safetensors altered": lambda folder: flip(folder / "state.safetensors"),
    "state.safetensors cut": lambda folder: (folder / "state.safetensors").write_bytes(b"\x08"),
    "state.json missing": lambda folder: (folder / "state.json").unlink(),
    "state.json cut": lambda folder: (folder / "state.json").write_text('{"step": '),
    "state.json empty": lambda folder: (folder / "state.json").write_text("{}"),
    "state.json a list": lambda folder: (folder / "state.json").write_text("[]"),
    "state.json without step": lambda folder: rewrite(folder, {"sha256": sha256_file(folder / "state.safetensors")}),
    "tensors of another kind": lambda folder: replace(folder, b"no safetensors at all"),
}


def rewrite(folder, state):
    (folder / "state.json").write_text(json.dumps(state))


def replace(folder, data):
    (folder / "state.safetensors").write_bytes(data)
    rewrite(
        folder,
        {"step": 3, "stage": "gates", "stage_step": 3, "data": "", "sha256": sha256_file(folder / "state.safetensors")},
    )


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_named_with_the_way_out(folder, damage):
    DAMAGE[damage](folder)
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(folder.parents[1], *fresh())
    assert "step-0000003 is damaged" in str(caught.value)
    assert "remove it to start from the beginning" in str(caught.value)


def retensored(folder, change):
    tensors = load_file(folder / "state.safetensors")
    change(tensors)
    save_file(tensors, folder / "state.safetensors")
    replace(folder, (folder / "state.safetensors").read_bytes())


@pytest.mark.parametrize(
    "change",
    [
        lambda tensors: tensors.pop("parameter.a"),
        lambda tensors: tensors.update({"parameter.x": torch.zeros(1)}),
        lambda tensors: tensors.update({"parameter.a": torch.zeros(9, 9)}),
    ],
    ids=["missing", "unknown", "shape"],
)
def test_a_checkpoint_of_another_model(folder, change):
    retensored(folder, change)
    with pytest.raises(CheckpointError, match="belongs to another recipe; use another run folder"):
        load_checkpoint(folder.parents[1], *fresh())
