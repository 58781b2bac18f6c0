"""Weights that lie at other addresses in memory: what is promised bit for bit holds, and the rest differs in last bits.

A safetensors file is mapped into memory and its tensors are packed, so where they begin depends on the length of the
file's header. On some processors (AMD, with MKL) a product with a single row is added up in another order there.
"""

import shutil

import pytest
import tiny
import torch
from agreement import assert_greedy_agree, assert_near, greedy
from safetensors.torch import load_file, save_file

import moai.model.run_folder
import moai.training.checkpoints
from moai.model.modeling import MoaiForConditionalGeneration
from moai.training.build import build
from moai.training.log import read_log
from moai.training.trainer import train

QUESTIONS = ("What color?", "Is there a red shape in it, or is there none at all?")


def shifted(path, remainder):
    """Write the file's tensors again with a header of such a length that the first begins at ``remainder`` of 16."""
    tensors = load_file(path)
    for padding in range(0, 64, 8):
        save_file(
            {name: t.clone() for name, t in tensors.items()}, path, metadata={"format": "pt", "pad": "-" * padding}
        )
        if (8 + int.from_bytes(path.read_bytes()[:8], "little")) % 16 == remainder:
            return
    raise AssertionError(f"no header gives {remainder}")


@pytest.fixture
def parts(tmp_path):
    """``parts(8)`` is a recipe of the tiny model whose frozen weights begin 8 bytes after a multiple of 16."""

    def made(remainder, **changes):
        folder = shutil.copytree(tiny.assets(), tmp_path / f"parts-{remainder}", dirs_exist_ok=True)
        shifted(folder / "host" / "model.safetensors", remainder)
        shifted(folder / "vision.safetensors", remainder)
        return tiny.recipe(folder, **changes)

    return made


@pytest.fixture
def odd_files(monkeypatch):
    """Every checkpoint is read into memory at odd multiples of 4 bytes."""

    def odd(path):
        tensors = {}
        for name, tensor in load_file(path).items():
            room = torch.empty(tensor.numel() + 1, dtype=tensor.dtype)
            tensors[name] = room[1:].view(tensor.shape).copy_(tensor)
        return tensors

    for module in (moai.model.run_folder, moai.training.checkpoints):
        monkeypatch.setattr(module, "load_file", odd)


def inputs_of(processor):
    return tiny.prompt_inputs(processor, QUESTIONS, [tiny.seen("red circle"), tiny.seen("blue box", text="hello")])


@torch.no_grad()
def test_wherever_frozen_weights_lie_the_model_answers_the_same(parts):
    models = []
    for remainder in (0, 8):
        model, processor = build(parts(remainder))
        assert {p.data_ptr() % 16 for p in model.host.parameters()} == {remainder}
        tiny.disturb(model, 0.1)
        models.append(model.eval())
    inputs = inputs_of(processor)
    assert_near(models[1](**inputs).logits, models[0](**inputs).logits)
    assert_greedy_agree(*(greedy(model, inputs, max_new_tokens=6, min_new_tokens=6) for model in models))


@torch.no_grad()
def test_a_loaded_run_gives_the_bits_of_the_saved_one(parts, odd_files, tmp_path):
    """Adapters are copied to where torch puts its own, and the frozen weights lie where they lay."""
    model, processor = build(parts(8))
    tiny.disturb(model, 0.1)
    model.eval().save_pretrained(tmp_path / "run")
    again = MoaiForConditionalGeneration.from_pretrained(tmp_path / "run")
    assert not any(p.data_ptr() % 64 for p in again.adapter_parameters().values()), "as torch gives its own memory"
    inputs = inputs_of(processor)
    for given in (inputs, {name: value[:1] for name, value in inputs.items()}):
        assert torch.equal(again(**given).logits, model(**given).logits)


@pytest.mark.slow
def test_a_resumed_run_repeats_an_uninterrupted_one(parts, odd_files, tmp_path, monkeypatch):
    """Bits: frozen weights are views of the same files, and all else is copied to where torch puts its own."""
    whole = train(parts(8), tmp_path / "whole")
    with monkeypatch.context() as patch:
        tiny.interrupt(patch, 4)
        with pytest.raises(KeyboardInterrupt):
            train(parts(8), tmp_path / "cut")
    resumed = train(parts(8), tmp_path / "cut", resume=True)
    assert [line["loss"] for line in read_log(resumed)] == [line["loss"] for line in read_log(whole)]
    assert (resumed / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()
