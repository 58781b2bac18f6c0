"""Shots, choices and rationales with a real model: its context, its gates, and the probability of a word."""

import pytest
import tiny
import torch

from moai.answering import Augmented
from moai.errors import PromptError
from moai.evaluation.gates import sample_gates
from moai.evaluation.paired import run_conditions
from moai.evaluation.prompting import Rationale
from moai.evaluation.shots import check_fit, with_shots
from moai.perception.running.perceiver import Perceiver
from moai.types import IMAGE, Choice, Conversation, Sample, Turn

COLORS = ("red", "green", "blue", "black")
TRAINING = [
    Sample.from_question(f"t{n}", tiny.picture(color), f"t{n}", "What color?", color)
    for n, color in enumerate(COLORS * 8)
]
ASKED = [Sample.from_question("q", tiny.picture("red"), "q", "What color?", "red")]
SEEN = {name: tiny.seen("red") for name in ("q", "other", *(s.id for s in TRAINING))}


@pytest.fixture(scope="module")
def augmented():
    model, processor = tiny.made()
    return Augmented(model, processor, Perceiver(["tiny-panoptic"]))


def test_the_log_probability_of_a_word_is_the_models_own(augmented):
    asked = [Conversation.ask(text, [tiny.picture("red")]) for text in ("Red?", "Is there a red circle?")]
    found = augmented.loglikelihood(asked, [[None], [None]], ["yes", "no red"])
    for conversation, answer, score in zip(asked, ("yes", "no red"), found, strict=True):
        inputs = augmented._inputs([conversation], [[None]])
        ids = augmented.processor.plain_ids(f" {answer}")
        whole = torch.cat([inputs["input_ids"], torch.tensor([ids])], dim=1)
        mixed = torch.cat([inputs["prompt_mask"], torch.zeros(1, len(ids), dtype=torch.bool)], dim=1)
        given = {"input_ids": whole, "prompt_mask": mixed, "pixel_values": inputs["pixel_values"]}
        with torch.no_grad():
            chances = augmented.model(**given).logits[0, -len(ids) - 1 : -1].log_softmax(-1)
        expected = sum(float(row[token]) for row, token in zip(chances, ids, strict=True))
        assert score == pytest.approx(expected, abs=1e-4)


def test_a_run_with_mixers_answers_after_shots_and_shows_its_gates(augmented):
    shots = with_shots(ASKED, TRAINING, 2)
    [record] = run_conditions(augmented, shots, SEEN, ["on", "off"], rationale=Rationale(max_new_tokens=3))
    assert set(record.predictions) == {"on", "off"} and record.tokens["on"]["prompt"] > 3 * tiny.IMAGE_TOKENS
    assert len(record.rationales["on"]) == 1
    assert sample_gates(augmented, shots, SEEN)["questions"] == 1


def test_of_shots_and_question_the_question_alone_is_cut_into_tiles():
    """MM1's mixed resolution for prompts with shots: one picture of each shot, five of the question's image."""
    model, processor = tiny.made(vision={"kind": "encoder", "tiles": {"grid": [2, 2], "last": 1}})
    augmented, shots = Augmented(model, processor, Perceiver(["tiny-panoptic"])), with_shots(ASKED, TRAINING, 2)
    inputs = augmented._inputs([shots[0].conversation.prompt], [[None] * 3])
    assert (inputs["input_ids"] == processor.image_token_id).sum() == (1 + 1 + 5) * tiny.IMAGE_TOKENS
    assert len(inputs["pixel_values"].flatten(0, -4)) == 1 + 1 + 5
    [record] = run_conditions(augmented, shots, SEEN, ["on", "off"])
    assert set(record.predictions) == {"on", "off"} and record.tokens["on"]["prompt"] == inputs["input_ids"].shape[1]
    [bare] = run_conditions(augmented, ASKED, SEEN, ["off"])
    assert bare.tokens["off"]["prompt"] < record.tokens["off"]["prompt"] - 2 * tiny.IMAGE_TOKENS


def test_a_row_of_shots_does_not_depend_on_the_rows_beside_it(augmented):
    turns = (Turn("user", (IMAGE, "Is it red?")),)
    images = (tiny.picture("red"), tiny.picture("blue"))
    choices = (Choice("A", turns, (0,), "yes"), Choice("B", turns, (1,), "yes"))
    whole = Conversation((Turn("user", (IMAGE, IMAGE, "Which?")), Turn("assistant", "A")), images)
    item = Sample("item", whole, ("q", "other"), choices=choices)
    alone = run_conditions(augmented, [item], SEEN, ["on"])[0].choices["on"]
    together = run_conditions(augmented, [*ASKED, item, *TRAINING[:2]], SEEN, ["on"])[1].choices["on"]
    assert together == pytest.approx(alone, abs=1e-4)


def test_more_shots_than_the_context_holds_are_a_sentence(augmented):
    check_fit(with_shots(ASKED, TRAINING, 2), 2, augmented.processor.encode)
    with pytest.raises(PromptError, match=r"^30 shots before 'q': the prompt has \d+ tokens and the host's context "):
        check_fit(with_shots(ASKED, TRAINING, 30), 30, augmented.processor.encode)
