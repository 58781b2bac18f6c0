"""Quantised frozen hosts: NF4 and 8-bit by bitsandbytes; adapters keep their precision and learn."""

import importlib.util
import json

import pytest
import tiny
import torch
from agreement import assert_greedy_agree, greedy
from safetensors.torch import load_file
from transformers import AutoModelForImageTextToText, LlamaForCausalLM

from moai.errors import HostError
from moai.model.host.loading import load_host, quantization_config
from moai.model.modeling import MoaiForConditionalGeneration
from moai.training.build import build
from moai.training.memory_plan.plan import plan

OPTIONS = {"max_new_tokens": 5, "min_new_tokens": 5}


def test_an_unknown_quantization_is_named():
    with pytest.raises(HostError, match="host.quantization 'nf8' is unknown"):
        quantization_config("nf8", torch.bfloat16)


def test_without_bitsandbytes_the_fix_is_named(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(HostError, match="host.quantization: nf4 needs the package 'bitsandbytes'; pip install bitsand"):
        quantization_config("nf4", torch.bfloat16)


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    """A host whose layers are multiples of the 64 weights that NF4 scales together."""
    folder = tmp_path_factory.mktemp("parts")
    tiny.write_assets(folder)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        LlamaForCausalLM(tiny.host_config(hidden_size=128, intermediate_size=128)).save_pretrained(folder / "host")
    return folder


@pytest.fixture(scope="module", params=["nf4", "int8"])
def quantized(request, parts):
    """A model around a quantised tiny host, its inputs, and the kind."""
    pytest.importorskip("bitsandbytes", reason="quantised hosts need bitsandbytes, which is an extra")
    tiny.register()
    made, processor = build(tiny.recipe(parts))
    host = load_host(str(parts / "host"), None, torch.bfloat16, quantization=request.param)
    made.config.host["quantization"] = request.param
    made.config.host["dtype"] = "bfloat16"
    model = MoaiForConditionalGeneration(made.config, host=host, vision=made.images.vision).eval()
    tiny.disturb(model, 0.1)
    questions = ("What color has the shape over there?", "Is it?")
    return model, tiny.prompt_inputs(processor, questions, [tiny.seen("red"), tiny.seen("blue")]), request.param


def test_a_plan_knows_what_a_quantized_host_weighs(quantized, parts):
    model, _, kind = quantized
    host = model.host
    stored = sum(tensor.numel() * tensor.dtype.itemsize for tensor in host.parameters())
    # bitsandbytes keeps the scales of nf4 with the weight; those of int8 go from there to the layer when it runs.
    scales = [weight.quant_state.absmax for weight in host.parameters() if getattr(weight, "quant_state", None)]
    scales += [layer.state.SCB for layer in host.modules() if hasattr(layer, "state")]
    stored += sum(scale.numel() * scale.dtype.itemsize for scale in scales)
    recipe = tiny.recipe(parts, host={"reference": str(parts / "host"), "dtype": "bfloat16", "quantization": kind})
    planned = {part.name: part for part in plan(recipe).parts}["host"]
    assert planned.weights == stored
    whole = {
        part.name: part
        for part in plan(tiny.recipe(parts, host={"reference": str(parts / "host"), "dtype": "bfloat16"})).parts
    }
    assert planned.parameters == whole["host"].parameters and planned.weights < whole["host"].weights


def test_the_host_is_small_and_the_adapters_are_whole(quantized):
    model, _, kind = quantized
    layer = model.host.model.layers[0].mlp.up_proj
    assert type(layer).__name__ == {"nf4": "Linear4bit", "int8": "Linear8bitLt"}[kind]
    assert layer.weight.element_size() == 1
    assert {p.dtype for p in model.adapter_parameters().values()} == {torch.float32}
    assert not any("bit" in type(module).__name__ for part in model.adapters().values() for module in part.modules())


def test_it_answers(quantized):
    model, inputs, kind = quantized
    first, second = (greedy(model, inputs, **OPTIONS, use_cache=cached) for cached in (True, False))
    assert first.tokens.shape == second.tokens.shape == (2, 5)
    if kind == "nf4":  # 8-bit products take their outlier columns from the whole call, so there steps may differ
        assert_greedy_agree(first, second, tolerance=0.1)  # the host computes in bfloat16: three digits of logits to 10
    with torch.no_grad():
        logits = model(**inputs).logits
        blind = model(**{name: value for name, value in inputs.items() if not name.startswith("aux_")}).logits
    assert logits.isfinite().all() and (logits - blind)[:, -1].abs().max() > 1e-2


def test_it_is_near_the_host_in_full(quantized, parts):
    model, _, kind = quantized
    full = load_host(str(parts / "host"), None, torch.float32).eval()
    words = torch.tensor([[40, 50, 60, 70]])
    with torch.no_grad():
        found, expected = model.host(input_ids=words).logits.float(), full(input_ids=words).logits
    likeness = torch.nn.functional.cosine_similarity(found, expected, dim=-1).min()
    assert likeness > {"nf4": 0.7, "int8": 0.98}[kind]


def test_a_pass_without_gradients_costs_the_next_one_nothing(quantized):
    """bitsandbytes repacks 4-bit weights on some CPUs at the first such pass, and gradients are gone from then on."""
    model, _, kind = quantized
    host = load_host(str(model.config.host["reference"]), None, torch.float32, quantization=kind).eval()
    host.requires_grad_(False)
    words = host.get_input_embeddings()(torch.tensor([[40, 50, 60, 70]])).detach()

    def gradient():
        given = words.clone().requires_grad_()
        host(inputs_embeds=given).logits.float().square().sum().backward()
        return given.grad

    before = gradient()
    with torch.no_grad():
        host(inputs_embeds=words)
    assert before.norm() > 1 and torch.equal(gradient(), before)


def test_training_moves_the_adapters_only(quantized):
    model, inputs, _ = quantized
    before = {name: value.clone() for name, value in model.host.state_dict().items() if torch.is_tensor(value)}
    labels = torch.full_like(inputs["input_ids"], -100)
    labels[:, -2:] = inputs["input_ids"][:, -2:]
    model.train()
    model(**inputs, labels=labels).loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.adapter_parameters().values())
    model.zero_grad()
    model.eval()
    after = model.host.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_run_keeps_the_reference_and_quantizes_again(quantized, parts, tmp_path):
    model, inputs, kind = quantized
    model.save_pretrained(tmp_path)
    assert set(load_file(tmp_path / "moai.safetensors")) == set(model.adapter_parameters())
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["host"]["quantization"] == kind and config["host"]["reference"] == str(parts / "host")
    assert "quantization_config" not in config["text_config"]
    again = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(again.host.model.layers[0].mlp.up_proj) is type(model.host.model.layers[0].mlp.up_proj)
    with torch.no_grad():
        # Bits: both are quantised from the same file, and adapters are always copied.
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
