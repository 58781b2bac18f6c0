"""What the evaluation asks of a real model beside answers: what a question costs, and what the gates choose."""

import numpy as np
import pytest
import tiny

from moai.answering import Augmented
from moai.evaluation.gates import sample_gates
from moai.evaluation.paired import run_conditions
from moai.perception.running.perceiver import Perceiver
from moai.types import Conversation

QUESTIONS = ["What color is the shape?", "Is it red, or is it green?"]
IMAGES = [tiny.picture("red"), tiny.picture("blue")]
ASKED = [Conversation.ask(question, [image]) for question, image in zip(QUESTIONS, IMAGES)]


@pytest.fixture(scope="module")
def augmented():
    model, processor = tiny.made()
    return Augmented(model, processor, Perceiver(["tiny-panoptic"]))


def test_token_counts_are_those_of_the_inputs(augmented):
    seen = tiny.seen("red", text="a sign with words")
    first, second = augmented.token_counts(ASKED, [[seen], [None]])
    inputs = tiny.prompt_inputs(augmented.processor, QUESTIONS, [seen, None])
    assert [first["prompt"], second["prompt"]] == inputs["attention_mask"].sum(dim=1).tolist()
    assert first["words"] == int(inputs["aux_attention_mask"][0].sum()) > 8
    assert (first["auxiliary"], second["auxiliary"], second["words"]) == (8, 0, 0)


def test_a_perception_without_words_costs_what_its_map_costs(augmented):
    empty = tiny.seen()
    [with_map] = augmented.token_counts(ASKED[:1], [[empty]])
    assert augmented.words(empty) == "" and with_map["words"] == 0
    assert with_map["auxiliary"] == (8 if empty.has_panoptic else 0)


def test_a_model_without_mixers_reads_nothing_beside_its_prompt():
    model, processor = tiny.made(mixer={"layers": []})
    bare = Augmented(model, processor, Perceiver(["tiny-panoptic"]))
    assert bare.token_counts(ASKED[:1], [[tiny.seen("red")]])[0]["auxiliary"] == 0
    assert bare.gate_weights(ASKED[:1], [[tiny.seen("red")]]) == {}


def test_gate_weights_are_those_of_real_tokens_and_leave_no_trace(augmented):
    seen = [[tiny.seen("red")], [None]]
    before = augmented.answer(ASKED, seen)
    weights = augmented.gate_weights(ASKED, seen)
    assert list(weights) == [0, 2]
    prompt = sum(len(augmented.processor.prompt_ids(question)) for question in QUESTIONS)
    for image, language in weights.values():
        assert image.shape == (2 * tiny.IMAGE_TOKENS, 3) and language.shape == (prompt - 2 * tiny.IMAGE_TOKENS, 3)
        assert np.allclose(image.sum(axis=1), 1, atol=1e-5) and np.allclose(language.sum(axis=1), 1, atol=1e-5)
        assert language.std(axis=0).max() > 1e-3, "the gates of a disturbed model differ by token"
    alone = augmented.gate_weights(ASKED[:1], seen[:1])
    assert np.allclose(alone[2][0], weights[2][0][: tiny.IMAGE_TOKENS], atol=1e-4)
    assert augmented.answer(ASKED, seen) == before


def test_all_conditions_run_through_a_real_model(augmented):
    samples = tiny.dataset("test")[:6]
    perceptions = {image: tiny.seen(s.answer) for s in samples for image in s.image_ids}
    conditions = ["on", "off", "shuffled", "noisy:0.5"]
    records = run_conditions(augmented, samples, perceptions, conditions, batch_size=4, max_new_tokens=2)
    assert all(set(r.tokens) == set(conditions) and r.tokens["on"]["auxiliary"] == 8 for r in records)
    assert all(r.tokens["on"]["prompt"] == r.tokens["off"]["prompt"] for r in records)
    assert [layer["layer"] for layer in sample_gates(augmented, samples, perceptions)["layers"]] == [0, 2]
