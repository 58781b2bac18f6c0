"""Compiled, checkpointed and in half precision: the numbers stay what they are in plain fp32."""

import functools
import shutil

import pytest
import tiny
import torch

from moai.model.mixer.attention import AttentionModule

QUESTIONS = ("What color has the shape over there?", "Is it?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"))


@pytest.fixture(autouse=True)
def fresh_compiler():
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@functools.cache
def plain():
    """The model as it is, inputs, and a training batch; nothing changes it."""
    model, processor = tiny.made()
    inputs = tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)
    samples = [tiny.dataset("train")[index] for index in (0, 9)]
    return model, inputs, tiny.training_batch(processor, samples, PERCEPTIONS)


def gradients(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), {name: p.grad.clone() for name, p in model.adapter_parameters().items() if p.grad is not None}


def counted(inner):
    """A backend that counts the graphs it is handed."""
    graphs = []

    def backend(graph, example_inputs):
        graphs.append(graph)
        return inner(graph, example_inputs)

    return backend, graphs


def eager(graph, example_inputs):
    return graph.forward


# torch.compile ----------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("arithmetic", ["moai", "published"])
@torch.no_grad()
def test_host_with_mixers_and_compressor_are_one_graph_each(arithmetic):
    model, processor = tiny.made(arithmetic=arithmetic, mixer={"layers": [1]}, compressor={"depth": 1})
    inputs = tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)
    swapped = tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS[::-1])
    expected = [model(**given).logits for given in (inputs, swapped)]
    assert (expected[0] - expected[1]).abs().max() > 1e-2
    backend, graphs = counted(eager)
    model.compile(backend=backend, fullgraph=True)
    with tiny.forward_contexts() as contexts:
        found = [model(**given).logits for given in (inputs, swapped)]
    assert len(graphs) == 2, "one for the compressor, one for the host; the second batch reuses both"
    assert contexts[1].calls == len(model.mixers), "the second call ran in the first one's context"
    for a, b in zip(found, expected, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


@pytest.mark.slow
def test_a_compiled_model_learns_the_same():
    model, _ = tiny.made(mixer={"layers": [1]}, compressor={"depth": 1})
    batch = plain()[2]
    loss, expected = gradients(model.train(), batch)
    model.compile(backend="eager", fullgraph=True)
    found_loss, found = gradients(model, batch)
    assert torch.allclose(found_loss, loss, atol=1e-5) and found.keys() == expected.keys()
    assert all(torch.allclose(found[name], grad, atol=1e-5) for name, grad in expected.items())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None and shutil.which("clang++") is None, reason="inductor needs a compiler")
@pytest.mark.skipif(torch.backends.cpu.get_cpu_capability() == "DEFAULT", reason="inductor needs vector instructions")
@torch.no_grad()
def test_an_attention_module_through_inductor():
    torch.manual_seed(0)
    module = AttentionModule(64, rank=8, heads=2, qk_norm_scale=4.0).eval()
    torch.nn.init.normal_(module.output.up.weight, std=8**-0.5)
    mask = torch.ones(2, 5, dtype=torch.bool)
    mask[1, 3:] = False
    given = torch.randn(2, 4, 64), torch.randn(2, 5, 64), mask
    expected = module(*given)
    assert torch.allclose(torch.compile(module, fullgraph=True)(*given), expected, atol=1e-5)
    assert expected.abs().max() > 0.1


# Activation checkpointing, both modes -----------------------------------------------------------------------------


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpointing_keeps_loss_and_gradients(reentrant):
    model, _ = tiny.made()
    batch = plain()[2]
    loss, expected = gradients(model.train(), batch)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    found_loss, found = gradients(model, batch)
    assert torch.equal(found_loss, loss) and found.keys() == expected.keys()
    assert all(torch.allclose(found[name], grad, atol=1e-6) for name, grad in expected.items())


# Half precision ---------------------------------------------------------------------------------------------------

HALF = {torch.bfloat16: 0.08, torch.float16: 0.01}  # relative to the largest logit


@pytest.mark.parametrize("dtype", HALF)
@torch.no_grad()
def test_autocast_is_near_fp32(dtype):
    model, inputs, _ = plain()
    expected = model(**inputs).logits[:, -1]
    with torch.autocast("cpu", dtype=dtype):
        found = model(**inputs).logits[:, -1]
    assert found.isfinite().all() and not torch.equal(found.float(), expected)
    assert (found.float() - expected).abs().max() < HALF[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", HALF)
@torch.no_grad()
def test_a_half_precision_host_is_near_fp32_with_adapters_in_fp32(dtype):
    expected = plain()[0](**plain()[1]).logits[:, -1]
    model, _ = tiny.made(host={"dtype": str(dtype).removeprefix("torch.")})
    assert {p.dtype for p in model.adapter_parameters().values()} == {torch.float32}
    found = model(**plain()[1]).logits[:, -1]
    assert found.dtype == dtype and found.isfinite().all()
    assert (found.float() - expected).abs().max() < HALF[dtype] * expected.abs().max()


@pytest.mark.parametrize("dtype", HALF)
def test_gradients_in_autocast_point_where_they_do_in_fp32(dtype):
    model, _ = tiny.made()
    batch = plain()[2]
    loss, expected = gradients(model.train(), batch)
    with torch.autocast("cpu", dtype=dtype):
        found_loss, found = gradients(model, batch)
    assert abs(found_loss - loss) < HALF[dtype] * loss
    assert found.keys() == expected.keys() and {grad.dtype for grad in found.values()} == {torch.float32}
    a, b = (torch.cat([grads[name].flatten() for name in expected]) for grads in (found, expected))
    assert torch.nn.functional.cosine_similarity(a, b, dim=0) > 0.98
