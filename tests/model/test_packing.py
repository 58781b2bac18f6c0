"""Packed rows: the same logits, loss and gradients as rows of their own, nothing from one document in another."""

import pytest
import tiny
import torch

from moai.errors import HostError
from moai.model.packing import check_packing, packed_inputs
from moai.model.processor.packing import pack
from moai.types import Conversation, Turn

TEXTS = [("What color is the shape?", "red"), ("Is it blue?", "no"), ("Is there a green circle here?", "yes it is")]
CONVERSATIONS = [Conversation.ask(question, (), answer) for question, answer in TEXTS]
DOCUMENT = Conversation((Turn("text", "red blue green black red blue"),), (), loss="all")


def batches(processor, conversations):
    """The conversations in rows of their own, and packed into one."""
    none = [[] for _ in conversations]
    apart = processor.batch(conversations, none, labels=True)
    return apart, processor.batch(conversations, none, labels=True, groups=[list(range(len(conversations)))])


def test_conversations_go_into_the_first_row_with_room():
    assert pack([4, 7, None, 3, 6, 3], 10) == [[0, 3, 5], [1], [2], [4]]
    assert pack([], 10) == [] and pack([12], 10) == [[0]]


def test_masks_and_positions_are_of_each_document():
    mask, positions = packed_inputs(torch.tensor([[1, 1, 2, 2, 0]]), torch.float32)
    allowed = (mask[0, 0] == 0).long().tolist()
    assert allowed == [[1, 0, 0, 0, 0], [1, 1, 0, 0, 0], [0, 0, 1, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]]
    assert positions.tolist() == [[0, 1, 0, 1, 0]]


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_packed_rows_have_the_loss_and_the_gradients_of_rows_of_their_own(attention):
    model, processor = tiny.made(noise=0.1)
    model.host.set_attn_implementation(attention)
    apart, packed = batches(processor, [*CONVERSATIONS, DOCUMENT])
    assert len(packed["input_ids"]) == 1 and len(apart["input_ids"]) == 4
    choices = torch.tensor([[1, 2]] * len(model.mixers))
    for more in ({}, {"module_choices": choices}):
        found = []
        for batch in (apart, packed):
            model.zero_grad()
            loss = model(**batch, **more, num_items_in_batch=10).loss
            loss.backward()
            found.append(
                (loss.item(), {n: p.grad for n, p in model.adapter_parameters().items() if p.grad is not None})
            )
        (loss, gradients), (other, others) = found
        assert abs(loss - other) < 1e-5 and gradients.keys() == others.keys() and gradients
        for name, gradient in gradients.items():
            assert torch.allclose(gradient, others[name], atol=1e-5), name


@torch.no_grad()
def test_a_document_changes_no_other_ones_logits():
    model, processor = tiny.made(noise=0.1)
    apart, packed = batches(processor, CONVERSATIONS)
    del packed["labels"]
    logits = model(**packed).logits[0]
    documents = packed["document_ids"][0]
    length = int(apart["attention_mask"][1].sum())
    alone = model(**{name: apart[name][1:2, :length] for name in ("input_ids", "attention_mask", "prompt_mask")}).logits
    assert torch.allclose(logits[documents == 2], alone[0], atol=1e-5)
    changed = packed["input_ids"].clone()
    changed[0, documents == 1] = changed[0, documents == 1].flip(0)
    other = model(**{**packed, "input_ids": changed}).logits[0]
    assert torch.equal(logits[documents == 3], other[documents == 3])
    assert not torch.allclose(logits[documents == 1], other[documents == 1], atol=1e-3)


def test_a_host_that_cannot_is_refused(monkeypatch):
    host = tiny.made()[0].remove_mixers()
    check_packing(host, 100)
    monkeypatch.setattr(host.config, "sliding_window", 8, raising=False)
    with pytest.raises(HostError, match="attends within 8 tokens, which packed rows of 100 would not"):
        check_packing(host, 100)
    monkeypatch.setattr(host.config, "sliding_window", None, raising=False)
    forward = type(host).forward

    def careless(self, attention_mask=None, position_ids=None, **given):
        return forward(self, **given)

    monkeypatch.setattr(type(host), "forward", careless)
    with pytest.raises(HostError, match="lets packed documents attend to each other; leave training.packing out"):
        check_packing(host, 100)
