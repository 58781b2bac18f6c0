"""Words in context: computed once per perception, the same numbers, and within a limit of memory."""

from __future__ import annotations

import pytest
import tiny
import torch
from moai_serve.word_states import WordStates

SEEN = [tiny.seen("red"), tiny.seen("blue box", "green disc", "red"), tiny.seen("red"), None]


@pytest.fixture(scope="module")
def built():
    return tiny.made(perception={"experts": ["tiny-panoptic"], "context_layer": 2})


@pytest.fixture
def batch(built):
    return tiny.prompt_inputs(built[1], ["Why?"] * 4, SEEN)


def test_states_are_the_models_and_computed_once(built, batch, monkeypatch):
    model, calls, words = built[0], [], type(built[0].auxiliary).words

    def counted(self, ids, mask):
        calls.append(ids.shape)
        return words(self, ids, mask)

    monkeypatch.setattr(type(model.auxiliary), "words", counted)
    states = WordStates(model)
    first, again = states.fill(batch)["aux_words"], states.fill(batch)["aux_words"]
    assert torch.equal(first, again) and len(calls) == 2 and all(len(shape) == 2 and shape[0] == 1 for shape in calls)
    real = batch["aux_attention_mask"].bool()
    expected = words(model.auxiliary, batch["aux_input_ids"], batch["aux_attention_mask"])
    assert torch.allclose(first[real], expected[real], atol=1e-4)
    assert torch.equal(
        model.generate(**states.fill(batch), max_new_tokens=6), model.generate(**batch, max_new_tokens=6)
    )


def test_the_least_recently_used_go_first(built, batch):
    states = WordStates(built[0])
    states.fill({name: batch[name][:1] for name in ("aux_input_ids", "aux_attention_mask")})
    one = states.size
    states.fill(batch)
    states.limit = states.size - 1
    states.fill({name: batch[name][:1] for name in ("aux_input_ids", "aux_attention_mask")})
    assert states.size == one > 0


def test_a_run_without_context_and_a_prompt_without_words_are_left_alone(built, batch):
    bare = WordStates(tiny.made()[0])
    assert bare.fill(batch) is batch
    assert WordStates(built[0]).fill({"input_ids": batch["input_ids"]}).keys() == {"input_ids"}
