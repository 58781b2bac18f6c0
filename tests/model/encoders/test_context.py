"""Auxiliary words in context: the host's own states at a layer, one row independent of another, nothing left behind."""

import pytest
import tiny
import torch

from moai.errors import HostError
from moai.model.encoders.context import context_states
from moai.model.host.layers import decoder_layers
from moai.model.mixer.forward_context import ForwardContext, current
from moai.model.norms import rms_normalize
from moai.types import Conversation


@pytest.fixture(scope="module")
def built():
    return tiny.made(perception={"context_layer": 2}, vision={"panoptic_map": False})


def words(processor, *texts):
    rows = [processor.plain_ids(text) for text in texts]
    width = max(map(len, rows))
    ids = torch.tensor([row + [0] * (width - len(row)) for row in rows])
    return ids, torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])


def test_the_states_are_those_of_the_bare_host(model, processor):
    ids, mask = words(processor, "red circle left of blue", "green")
    states = context_states(model.host, model.graft, ids, mask, 2)
    row = torch.cat([torch.tensor([[model.host.config.bos_token_id]]), ids[:1]], dim=1)
    with torch.no_grad():
        expected = model.host(row, output_hidden_states=True).hidden_states[2][:, 1:]
    expected = rms_normalize(expected)
    assert torch.allclose(states[:1], rms_normalize(expected - expected.mean(dim=1, keepdim=True)), atol=1e-5)
    assert not states[1][~mask[1].bool()].any() and states[1][mask[1].bool()].isfinite().all()


def test_a_word_knows_the_words_before_it(model, processor):
    ids, mask = words(processor, "red circle", "blue circle")
    states = context_states(model.host, model.graft, ids, mask, 2)
    ends = [int(row.sum()) - 1 for row in mask]
    assert ids[0, ends[0]] == ids[1, ends[1]]
    assert (states[0, ends[0]] - states[1, ends[1]]).abs().max() > 0.05


def test_rows_do_not_depend_on_each_other(model, processor):
    texts = ("red circle left of blue", "green", "a circle")
    ids, mask = words(processor, *texts)
    together = context_states(model.host, model.graft, ids, mask, 2)
    for row, text in enumerate(texts):
        alone = context_states(model.host, model.graft, *words(processor, text), 2)
        assert torch.allclose(together[row, : alone.shape[1]], alone[0], atol=1e-5)


def test_hooks_and_context_are_as_before(model, processor):
    before = [len(layer._forward_pre_hooks) for layer in decoder_layers(model.host)]
    with ForwardContext(model.graft).running() as context:
        context_states(model.host, model.graft, *words(processor, "red"), 2)
        assert current(model.graft) is context
    assert current(model.graft) is None
    assert [len(layer._forward_pre_hooks) for layer in decoder_layers(model.host)] == before


@pytest.mark.parametrize("layer", [0, 4, 99])
def test_a_layer_that_is_not_there(model, processor, layer):
    with pytest.raises(HostError, match="context_layer"):
        context_states(model.host, model.graft, *words(processor, "red"), layer)


def test_the_model_uses_it_and_keeps_it(model, processor, tmp_path):
    inputs = tiny.prompt_inputs(processor, ["What?", "Is it red?"], [tiny.seen("red", "blue"), tiny.seen("blue")])
    with torch.no_grad():
        logits = model(**inputs).logits
        model.auxiliary.context_layer = None
        assert (model(**inputs).logits - logits).abs().max() > 1e-3
        model.auxiliary.context_layer = 2
        model.save_pretrained(tmp_path)
        loaded = type(model).from_pretrained(tmp_path)
        assert torch.allclose(loaded(**inputs).logits, logits, atol=1e-5)


def test_gradients_pass_the_compressor_only(model, processor):
    inputs = tiny.prompt_inputs(processor, ["What?"], [tiny.seen("red", "blue")])
    model(**inputs).logits.sum().backward()
    assert all(p.grad is None for p in model.host.parameters())
    assert any(p.grad is not None and p.grad.any() for p in model.auxiliary.compressor.parameters())


def test_analysing_a_model_that_reads_its_words_in_context(model, processor):
    from moai.answering import Augmented

    augmented = Augmented(model, processor, None)
    seen = [tiny.seen("red", "blue")]
    gates = augmented.gate_weights([Conversation.ask("What?", [tiny.picture("red")])], [seen])
    assert list(gates) == [0, 2] and all(weights.shape[-1] == 3 for pair in gates.values() for weights in pair)
    attribution = model(**tiny.prompt_inputs(processor, ["What?"], seen), return_attribution=True).attribution
    assert [part.layer for part in attribution.mixers] == [0, 2]
