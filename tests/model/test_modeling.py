"""The joined model: what trains, what stays frozen, gradients and copies."""

import copy
import itertools

import pytest
import tiny
import torch
from agreement import assert_near
from transformers import AutoModelForCausalLM

from moai.errors import HostError
from moai.model.mixer.mixer import IMAGE_MODULES, LANGUAGE_MODULES

QUESTIONS = ("What color?", "Is there a red shape in it, or is there none at all?", "Which one?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc", text="hello there"), tiny.seen())


@pytest.fixture
def model(built):
    """The shared model; its mode and gradients are put back, its weights must not be changed."""
    yield built[0]
    built[0].eval().zero_grad()


@pytest.fixture
def inputs(processor):
    return tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)


def last(model, inputs):
    """Logits at the last position, ``(B, vocabulary)``."""
    with torch.no_grad():
        return model(**inputs).logits[:, -1]


# What trains ------------------------------------------------------------------------------------------------------


def expected_names():
    names = [f"connector.{layer}.{kind}" for layer in (0, 2) for kind in ("weight", "bias")]
    names += ["compressor.latents", "compressor.norm.weight", "compressor.norm.bias"]
    for layer in range(2):
        start = f"compressor.layers.{layer}"
        names += [f"{start}.{norm}.{kind}" for norm in ("norm_input", "norm_latents") for kind in ("weight", "bias")]
        names += [f"{start}.{name}.weight" for name in ("query", "key_value", "output")]
        names += [f"{start}.feedforward.0.{kind}" for kind in ("weight", "bias")]
        names += [f"{start}.feedforward.{index}.weight" for index in (1, 3)]
    for mixer in (0, 2):
        for module, part, side in itertools.product(
            IMAGE_MODULES + LANGUAGE_MODULES, ("query", "key", "value", "output"), ("down", "up")
        ):
            names.append(f"mixers.{mixer}.attention.{module}.{part}.{side}.weight")
        for gate, kind in itertools.product(("gate_image", "gate_language"), ("weight", "bias")):
            names.append(f"mixers.{mixer}.{gate}.{kind}")
    return set(names)


def test_exactly_these_names_train(model):
    assert set(model.adapter_parameters()) == expected_names()
    trained = {id(p) for p in model.parameters() if p.requires_grad}
    assert trained == {id(p) for p in model.adapter_parameters().values()} and len(trained) == len(expected_names())
    frozen = {id(p) for p in (*model.host.parameters(), *model.images.vision.parameters())}
    assert frozen == {id(p) for p in model.parameters() if not p.requires_grad}


def test_adapters_are_fp32_whatever_the_host_computes_in():
    model, processor = tiny.made(host={"dtype": "bfloat16"})
    assert {p.dtype for p in model.adapter_parameters().values()} == {torch.float32}
    assert {p.dtype for p in model.host.parameters()} == {torch.bfloat16}
    logits = last(model, tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS))
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


def test_host_and_vision_stay_in_evaluation_mode(model):
    model.train()
    assert model.training and model.mixers.training
    assert not any(module.training for module in (*model.host.modules(), *model.images.vision.modules()))


# The bare host ----------------------------------------------------------------------------------------------------


def test_without_mixers_and_perception_the_logits_are_the_bare_hosts():
    model, processor = tiny.made()
    bare = AutoModelForCausalLM.from_pretrained(tiny.assets() / "host", dtype=torch.float32).eval()
    ids = torch.tensor([processor.tokenizer("What color is the shape? Is there a red circle?")["input_ids"]])
    with torch.no_grad():
        expected = bare(input_ids=ids).logits
        assert (model(input_ids=ids).logits - expected).abs().max() > 1e-2
        host = model.remove_mixers()
        alone = host(input_ids=ids).logits
        assert_near(alone, expected)  # two loads, of which one is frozen
        assert torch.equal(model(input_ids=ids).logits, alone)
    assert list(host.state_dict()) == list(bare.state_dict())
    assert all(torch.equal(a, b) for a, b in zip(host.state_dict().values(), bare.state_dict().values(), strict=True))


def test_a_forward_pass_leaves_nothing_behind_for_the_host_alone(model, inputs):
    """After a forward pass with perceptions, a prompt without any image is mixed by itself."""
    ids = inputs["input_ids"][:1, -5:]
    before = last(model, {"input_ids": ids})
    last(model, inputs)
    assert torch.equal(last(model, {"input_ids": ids}), before)


def test_a_fresh_model_starts_as_the_host():
    """Identity at initialisation: whatever was perceived, untrained mixers change no logit."""
    model, processor = tiny.made(noise=0.0)
    inputs = tiny.prompt_inputs(processor, QUESTIONS, PERCEPTIONS)
    with_mixers = last(model, inputs)
    model.remove_mixers()
    assert torch.equal(last(model, inputs), with_mixers)


def test_perception_and_image_are_read(model, inputs):
    """What the tests of invariance rely on: with noise on the adapters everything has an effect."""
    logits = last(model, inputs)
    other = {name: value[[1, 0, 2]] for name, value in inputs.items()}
    for names in (("aux_input_ids", "aux_attention_mask"), ("aux_pixel_values",), ("pixel_values",)):
        changed = last(model, {**inputs, **{name: other[name] for name in names}})
        assert (changed - logits)[:2].abs().amax(dim=1).min() > 5e-3, names
    without = {name: value for name, value in inputs.items() if not name.startswith("aux_")}
    assert (last(model, without) - logits).abs().amax(dim=1).min() > 0.01


# Gradients --------------------------------------------------------------------------------------------------------


def gradients(model, batch):
    model.zero_grad()
    model(**batch).loss.backward()
    return {name: p.grad for name, p in model.adapter_parameters().items()}


# With its features dropped an image still has its tokens, but the connector's first weights see only zeros, and the
# first mixer sees equal tokens: which of them it attends to changes nothing, so that its gradients are rounding errors
# on one processor and zeros on another.
UNREACHED = {"connector.0.weight"} | {
    f"mixers.0.attention.{module}.{part}.{side}.weight"
    for module, part, side in itertools.product(("image_self", "language_image"), ("query", "key"), ("down", "up"))
}


@pytest.mark.parametrize("noise", [0.0, 0.1])
@pytest.mark.parametrize("case", ["black image", "image dropped", "nothing seen", "half dropped"])
def test_hard_batches_have_finite_gradients_everywhere(noise, case):
    model, processor = tiny.made(noise=noise)
    model.train()
    samples = [tiny.dataset("train")[index] for index in (0, 9)]
    perceptions = [tiny.seen() if case == "nothing seen" else tiny.seen("red"), tiny.seen("red")]
    batch = tiny.training_batch(processor, samples, perceptions)
    if case == "black image":
        batch["pixel_values"] = torch.full_like(batch["pixel_values"], -1.0)
    if "dropped" in case:
        batch["image_keep"] = torch.tensor([case == "half dropped", False])
    grads = gradients(model, batch)
    missing = {name for name, grad in grads.items() if grad is None}
    assert not missing
    assert all(grad.isfinite().all() and grad.abs().max() < 1e3 for grad in grads.values())
    reached = {name for name, grad in grads.items() if grad.any()}
    if noise:
        assert set(grads) - reached <= (UNREACHED if case == "image dropped" else set())


def test_image_dropout_leaves_nothing_of_the_image(model, inputs):
    other = {**inputs, "pixel_values": inputs["pixel_values"].flip(-1).flip(0)}
    keep = torch.tensor([False, True, False])
    a, b = last(model, {**inputs, "image_keep": keep}), last(model, {**other, "image_keep": keep})
    assert torch.equal(a[[0, 2]], b[[0, 2]])
    assert (a[1] - last(model, inputs)[1]).abs().max() < 1e-6


@pytest.mark.parametrize("arithmetic", ["moai", "published"])
@pytest.mark.parametrize("reentrant", [False, True])
@pytest.mark.parametrize("step1", [False, True])
def test_activation_checkpointing_changes_no_gradient(arithmetic, reentrant, step1):
    model, processor = tiny.made(arithmetic=arithmetic)
    model.train()
    samples = [tiny.dataset("train")[index] for index in (0, 9, 22)]
    batch = tiny.training_batch(processor, samples, PERCEPTIONS)
    if step1:
        batch["module_choices"] = torch.tensor([[0, 0], [1, 0]])
    expected = gradients(model, batch)
    model.activation_checkpointing_enable({"use_reentrant": reentrant})
    runs = []  # before the attention: the backward pass recomputes no more than it needs
    model.host.model.layers[1].self_attn.register_forward_pre_hook(lambda *_: runs.append(1))
    found = gradients(model, batch)
    assert len(runs) == 2, "the layers were not run again in the backward pass: nothing was checkpointed"
    assert {name for name, grad in found.items() if grad is None} == {
        name for name, grad in expected.items() if grad is None
    }
    for name, grad in expected.items():
        if grad is not None:
            assert torch.allclose(found[name], grad, atol=1e-6), name


# Copies and other hosts -------------------------------------------------------------------------------------------


def test_deepcopy_copies_the_mixers_with_the_model(model, inputs):
    logits = last(model, inputs)
    twin = copy.deepcopy(model)
    assert torch.equal(last(twin, inputs), logits)
    tiny.disturb(twin, 0.3, seed=9)
    assert (last(twin, inputs) - logits).abs().max() > 0.01
    assert torch.equal(last(model, inputs), logits)
    assert twin.graft is not model.graft
    twin.remove_mixers()
    assert torch.equal(last(model, inputs), logits)


def test_a_layer_that_the_host_does_not_have():
    with pytest.raises(HostError, match=r"mixer in layer 9.*layers 0 to 3; change mixer\.layers"):
        tiny.made(mixer={"layers": [0, 9]})


def test_no_mixers_at_all_is_the_connector_only_baseline():
    model, processor = tiny.made(mixer={"layers": []}, perception={"experts": []})
    assert not model.mixers
    inputs = tiny.prompt_inputs(processor, QUESTIONS, (None,) * 3)
    assert last(model, inputs).isfinite().all()
