"""The model as a part of other code: what callers pass that is no plain batch of ours, and what they get for it."""

import pytest
import tiny
import torch

import moai
from moai.errors import HostError, PromptError
from moai.model.modeling import MoaiForConditionalGeneration
from moai.plugins import registry
from moai.types import Conversation


@pytest.fixture(scope="module")
def inputs(built):
    return tiny.prompt_inputs(built[1], ["What color is it?", "Red, is it?"], [tiny.seen("red"), tiny.seen("blue")])


def training(processor, count=4):
    samples = tiny.dataset("train")[:count]
    seen = [[tiny.seen(sample.answer)] for sample in samples]
    return dict(processor.batch([sample.conversation for sample in samples], seen, labels=True))


# Embeddings instead of ids -------------------------------------------------------------------------------------------


def test_embeddings_beside_ids_are_the_same(model, inputs):
    features = model.images.encode(inputs["pixel_values"], inputs["input_ids"])
    is_image = inputs["input_ids"] == model.config.image_token_id
    embeds = model.get_input_embeddings()(inputs["input_ids"].masked_fill(is_image, 0)).clone()
    embeds[is_image] = features.flatten(0, 1).to(embeds.dtype)
    given = {name: value for name, value in inputs.items() if name != "pixel_values"}
    torch.testing.assert_close(model(**given, inputs_embeds=embeds).logits, model(**inputs).logits)


@pytest.mark.parametrize("name", ["aux_input_ids", "prompt_mask"])
def test_a_perception_beside_embeddings_alone_is_refused(model, inputs, name):
    embeds = model.get_input_embeddings()(inputs["input_ids"])
    with pytest.raises(PromptError, match="pass them beside inputs_embeds"):
        model(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], **{name: inputs[name]})


# Precision -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_model_in_half_precision_keeps_its_adapters(dtype):
    model, processor = tiny.made()
    before = {name: p.detach().clone() for name, p in model.adapter_parameters().items()}
    model.to(dtype)
    assert model.get_input_embeddings().weight.dtype == dtype
    assert all(torch.equal(p, before[name]) for name, p in model.adapter_parameters().items())
    logits = model(**tiny.prompt_inputs(processor, ["What?"], [tiny.seen("red")])).logits
    assert logits.dtype == dtype and torch.isfinite(logits).all()
    model.float()
    assert model.get_input_embeddings().weight.dtype == torch.float32
    model.double()
    assert {p.dtype for p in model.parameters()} == {torch.float64}


def test_half_and_bfloat16_are_the_same_call(built):
    model, _ = tiny.made()
    assert {p.dtype for p in model.half().adapter_parameters().values()} == {torch.float32}
    assert {p.dtype for p in model.bfloat16().adapter_parameters().values()} == {torch.float32}


# Images and labels ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["forward", "generate"])
def test_placeholders_without_images_are_refused(model, inputs, call):
    given = {name: value for name, value in inputs.items() if name != "pixel_values"}
    with pytest.raises(PromptError, match="8 image placeholders and no pixel_values; pass the images too"):
        model(**given) if call == "forward" else model.generate(**given, max_new_tokens=2)


def test_text_alone_needs_no_images(model, processor):
    inputs = dict(processor.batch([Conversation.ask("Hello?")], [[]]))
    assert "pixel_values" not in inputs and "aux_input_ids" not in inputs
    assert model(**inputs).logits.shape[0] == 1
    assert model.generate(**inputs, max_new_tokens=2, do_sample=False).shape[0] == 1


def test_no_label_is_no_loss(model, processor):
    batch = training(processor)
    batch["labels"] = torch.full_like(batch["labels"], -100)
    output = model(**batch)
    assert output.loss.item() == 0.0
    parameters = list(model.adapter_parameters().values())
    gradients = torch.autograd.grad(output.loss, parameters, allow_unused=True)
    assert all(gradient is None or not gradient.any() for gradient in gradients)


def test_a_row_without_labels_beside_others(model, processor):
    batch = training(processor)
    alone = {name: value[:1] for name, value in batch.items()}
    batch["labels"][1:] = -100
    torch.testing.assert_close(model(**batch).loss, model(**alone).loss)


def test_accumulated_gradients_are_those_of_one_batch(model, processor):
    """As transformers' ``Trainer`` accumulates: each part is divided by the labels of all of them."""
    batch = training(processor)
    items = (batch["labels"] != -100).sum()
    whole = model(**batch).loss
    parts = [
        model(**{name: value[row : row + 1] for name, value in batch.items()}, num_items_in_batch=items).loss
        for row in range(len(batch["labels"]))
    ]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)


# Loading -------------------------------------------------------------------------------------------------------------


def test_loading_information_as_transformers_gives_it(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded, info = MoaiForConditionalGeneration.from_pretrained(tmp_path, output_loading_info=True)
    assert isinstance(loaded, MoaiForConditionalGeneration)
    assert info == {"missing_keys": [], "unexpected_keys": [], "mismatched_keys": [], "error_msgs": []}


@pytest.fixture
def saved(model, processor, tmp_path):
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    return tmp_path


def test_a_run_opens_without_the_plugin_it_was_trained_with(saved, monkeypatch, caplog):
    monkeypatch.delitem(registry().experts, "tiny-panoptic")
    augmented = moai.load(saved)
    assert len(augmented.perceiver.experts) == 0
    assert "expert 'tiny-panoptic' is not installed, so answers do without it; pip install" in caplog.text
    assert augmented.ask(tiny.picture("red"), "What color?").perception.segments == ()


def test_another_version_of_an_expert_is_named(saved, monkeypatch, caplog):
    monkeypatch.setattr(tiny.TinyPanoptic, "version", "2")
    moai.load(saved)
    assert "expert 'tiny-panoptic' has version 2; the run was trained with 1" in caplog.text


def test_the_same_version_is_no_news(saved, caplog):
    moai.load(saved)
    assert "tiny-panoptic" not in caplog.text


# Mixers --------------------------------------------------------------------------------------------------------------


def test_mixers_that_match_no_layer_are_refused():
    with pytest.raises(HostError, match="mixer.every is 16 and the host has 4 layers, 0 to 3, so none would have"):
        tiny.made(mixer={"layers": None, "every": 16})
