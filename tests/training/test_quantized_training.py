"""Low-rank adapters on a quantized host: they alone train, and the run opens around the same quantized host."""

import pytest
import tiny
import torch
from safetensors.torch import load_file
from transformers import LlamaForCausalLM

import moai
from moai.training.build import build
from moai.training.log import read_log
from moai.training.trainer import train

PARTS = {"connector": 0.01, "mixers": 0.01, "host": {"rate": 0.01, "lora": 4}}


@pytest.fixture(scope="module", params=["nf4", "int8"])
def recipe(request, tmp_path_factory):
    """A recipe of a host whose layers are multiples of the 64 weights that NF4 scales together."""
    pytest.importorskip("bitsandbytes", reason="quantized hosts need bitsandbytes, which is an extra")
    folder = tmp_path_factory.mktemp("parts")
    tiny.write_assets(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(tiny.host_config(hidden_size=128, intermediate_size=128)).save_pretrained(folder / "host")
    host = {"reference": str(folder / "host"), "dtype": "bfloat16", "quantization": request.param}
    return tiny.recipe(folder, host=host, stages=[tiny.stage(steps=4, train=PARTS)])


@pytest.mark.slow
def test_adapters_of_a_quantized_host_train_alone(recipe, tmp_path, monkeypatch):
    tiny.interrupt(monkeypatch, 3)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "run")
    run, whole = train(recipe, tmp_path / "run", resume=True), train(recipe, tmp_path / "whole")
    assert (run / "moai.safetensors").read_bytes() == (whole / "moai.safetensors").read_bytes()
    saved = load_file(run / "moai.safetensors")
    adapters = {name: tensor for name, tensor in saved.items() if name.startswith("host.")}
    assert adapters and all("lora_" in name and tensor.dtype == torch.float32 for name, tensor in adapters.items())
    # They start as nothing, and a gradient reaches those of the first layer through all quantized ones.
    moved = [float(tensor.abs().max()) for name, tensor in adapters.items() if "layers.0." in name and "lora_B" in name]
    assert moved and all(value > 0 for value in moved)
    assert all(line["loss"] < 20 for line in read_log(run))

    fresh = dict(build(recipe)[0].host.named_parameters())
    opened = moai.load(run, device="cpu")
    frozen = {name: p for name, p in opened.model.host.named_parameters() if "lora_" not in name}
    assert frozen and all(torch.equal(p, fresh[name]) for name, p in frozen.items())
    assert opened.ask(tiny.picture("red"), "What color is the shape?").failures == ()
