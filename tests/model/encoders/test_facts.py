"""What a fact's words have in common: which tokens end one, and means that follow neither padding nor neighbours."""

import pytest
import tiny
import torch

from moai.model.encoders.facts import END_MARKS, ORDER, fact_embeddings, fact_ends, fact_numbers
from moai.model.norms import rms_normalize

COMMA, STOP = 7, 8


def test_the_ends_are_tokens_of_marks_alone():
    tokenizer = tiny.tokenizer()
    found = {tokenizer.decode([number]) for number in fact_ends(tokenizer)}
    assert {",", ".", ";", ":"} <= found and all(set(text.strip()) <= END_MARKS for text in found)
    assert not found & {"red", "a", "1", " "}


def test_numbers_count_the_ends_before():
    ids = torch.tensor([[20, 21, COMMA, 22, STOP, 23, 0]])
    inside, number = fact_numbers(ids, torch.tensor([[1, 1, 1, 1, 1, 1, 0]]), [COMMA, STOP])
    assert inside.tolist() == [[True, True, False, True, False, True, False]]
    assert number[inside].tolist() == [0, 0, 1, 2]


def test_means_are_those_of_a_loop():
    torch.manual_seed(0)
    ids, words = torch.tensor([[20, 21, COMMA, 22, 23, STOP]]), torch.randn(1, 6, 16)
    found = fact_embeddings(words, ids, torch.ones_like(ids), [COMMA, STOP])
    first, second = (rms_normalize(words[0, part].mean(dim=0)) for part in (slice(0, 2), slice(3, 5)))
    assert torch.allclose(found[0, 0], first, atol=1e-5) and torch.equal(found[0, 0], found[0, 1])
    assert torch.allclose(found[0, 3], second, atol=1e-5) and torch.equal(found[0, 3], found[0, 4])
    assert not found[0, 2].any() and not found[0, 5].any()


def test_the_order_is_that_of_a_loop():
    torch.manual_seed(0)
    ids, words = torch.tensor([[20, 21, 22, COMMA, 23, COMMA, 24, 25]]), torch.randn(1, 8, 16)
    found = fact_embeddings(words, ids, torch.ones_like(ids), [COMMA], ordered=True)
    for places in ([0, 1, 2], [4], [6, 7]):
        order = sum(weight * words[0, place] for weight, place in zip(torch.linspace(1, -1, len(places)), places))
        order = rms_normalize(order).roll(8) if len(places) > 1 else torch.zeros(16)
        expected = rms_normalize(rms_normalize(words[0, places].mean(dim=0)) + ORDER * order)
        assert all(torch.allclose(found[0, place], expected, atol=1e-5) for place in places)
    assert not found[0, [3, 5]].any()


def test_the_same_words_in_the_same_order_are_more_alike():
    torch.manual_seed(0)
    star, above, square = torch.randn(3, 256)
    ids = torch.tensor([[20, 21, 22]])

    def fact(*words, ordered=True):
        return fact_embeddings(torch.stack(words)[None], ids, torch.ones_like(ids), [], ordered)[0, 0]

    asked = fact(star, above, square)
    same, other = asked @ fact(star, above, square) / 256, asked @ fact(square, above, star) / 256
    assert same > 0.99 and other < 0.5
    assert torch.allclose(fact(star, above, square, ordered=False), fact(square, above, star, ordered=False), atol=1e-5)


@pytest.mark.parametrize("ordered", [False, True])
def test_padding_on_either_side_changes_nothing(ordered):
    torch.manual_seed(0)
    ids, words = torch.tensor([[20, 21, COMMA, 22]]), torch.randn(1, 4, 16)
    alone = fact_embeddings(words, ids, torch.ones_like(ids), [COMMA], ordered)
    for left in (0, 2):
        padded = torch.full((1, 6), COMMA)
        mask, wide = torch.zeros(1, 6, dtype=torch.long), torch.randn(1, 6, 16)
        padded[:, left : left + 4], mask[:, left : left + 4], wide[:, left : left + 4] = ids, 1, words
        found = fact_embeddings(wide, padded, mask, [COMMA], ordered)
        # Near, and not bit for bit: sums over six tokens need not be added up as those over four.
        assert torch.allclose(found[:, left : left + 4], alone, atol=1e-5) and not found[mask == 0].any()


def test_a_word_carries_its_fact_into_the_model_and_back_from_disk(tmp_path):
    model, processor = tiny.made(perception={"fact_context": True, "style": "compact"}, vision={"panoptic_map": False})
    inputs = tiny.prompt_inputs(processor, ["What?", "Is it red?"], [tiny.seen("red", "blue"), tiny.seen("blue")])
    with torch.no_grad():
        logits = model(**inputs).logits
        model.save_pretrained(tmp_path)
        assert torch.allclose(type(model).from_pretrained(tmp_path)(**inputs).logits, logits, atol=1e-5)
        model.auxiliary.fact_ends = None
        assert (model(**inputs).logits - logits).abs().max() > 1e-3


def test_every_word_has_a_compressed_token_and_no_mark_has():
    parts = {"perception": {"fact_context": True, "style": "compact"}, "vision": {"panoptic_map": False}}
    model, processor = tiny.made(**parts, compressor={"latents": 96})
    inputs = processor.perceptions.auxiliary([[tiny.seen("red")], [tiny.seen("red", "blue")]])
    ids, mask = inputs["aux_input_ids"], inputs["aux_attention_mask"]
    inside, _ = fact_numbers(ids, mask, model.config.fact_ends)
    assert mask.bool().logical_xor(inside).any() and inside.sum(dim=1).max() <= len(model.auxiliary.compressor.latents)
    for position in range(ids.shape[1]):
        marked = torch.zeros(2, 2, ids.shape[1] + 1, dtype=torch.bool)
        marked[:, 1, position] = True
        found = model.auxiliary.target_latents(marked, ids, mask)
        assert found.shape == (2, 2, 97) and not found[:, 0].any() and not found[..., -1].any()
        assert found[:, 1].any(dim=1).tolist() == inside[:, position].tolist()


@pytest.mark.parametrize("ordered", [False, True])
def test_a_question_is_its_own_words_alone(ordered):
    """Neither its images, nor padding, nor its neighbours in the batch, nor the answer behind it."""
    model, processor = tiny.made(mixer={"question_context": 1.0}, perception={"word_order": ordered})
    shown = [tiny.picture("red")] * 2
    inputs = tiny.prompt_inputs(processor, ["What?", "Is it red or blue or neither?"], [tiny.seen("red")] * 2, shown)
    words = inputs["attention_mask"].bool() & (inputs["input_ids"] != model.config.image_token_id)
    means = model.auxiliary.question_embedding(inputs["input_ids"], words)
    with torch.no_grad():
        logits = model(**inputs).logits[:, -1]
        for row, question in enumerate(["What?", "Is it red or blue or neither?"]):
            alone = tiny.prompt_inputs(processor, [question], [tiny.seen("red")], shown[:1])
            ids = alone["input_ids"][alone["input_ids"] != model.config.image_token_id][None]
            pooled = model.auxiliary.question_embedding(ids, torch.ones_like(ids).bool())[0]
            assert torch.allclose(pooled, means[row], atol=1e-6)
            assert torch.allclose(model(**alone).logits[0, -1], logits[row], atol=1e-5)
        for mixer in model.mixers.values():
            mixer.question_context = False
        assert (model(**inputs).logits[:, -1] - logits).abs().max() > 1e-4
