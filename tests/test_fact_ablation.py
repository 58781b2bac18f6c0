"""Each fact left out and asked again: the numbers are those of asking without it."""

import math

import pytest
import tiny

import moai
from moai import IMAGE, Conversation, Perception, Segment, Turn
from moai.answering import Augmented
from moai.errors import PromptError
from moai.perception.running.perceiver import Perceiver
from moai.types import Source, TextLine

ASKED = Conversation.ask("What color is the shape?", [tiny.picture("red")])


@pytest.fixture(scope="module")
def run():
    model, processor = tiny.made()
    return Augmented(model.fix_adapters(), processor, Perceiver(["tiny-panoptic"]))


def test_a_fact_left_out_is_the_perception_without_it(run):
    whole, without = tiny.seen("red", "blue", text="EXIT"), tiny.seen("red", "blue")
    found = moai.ablate_facts(run, ASKED, [whole], "red")
    assert found.answer == "red" and found.logprob == pytest.approx(run.loglikelihood([ASKED], [[whole]], ["red"])[0])
    assert {(fact.role, fact.number) for fact in found.facts} == {
        ("panoptic", 0), ("panoptic", 1), ("scene_graph", 0), ("ocr", 0)
    }  # fmt: skip
    [text] = [fact for fact in found.facts if fact.role == "ocr"]
    assert text.fact == whole.texts[0] and text.read and text.image == 0
    assert text.logprob == pytest.approx(run.loglikelihood([ASKED], [[without]], ["red"])[0], abs=1e-4)
    assert text.answer == run.answer([ASKED], [[without]], 16)[0]


def test_facts_are_ranked_by_the_fall_of_the_probability(run):
    found = moai.ablate_facts(run, ASKED, [tiny.seen("red", "blue", text="EXIT")], "red", batch_size=3)
    falls = [found.fall(fact) for fact in found.facts]
    assert falls == sorted(falls, reverse=True) and len({round(fall, 6) for fall in falls}) > 1
    assert falls[0] == pytest.approx(math.exp(found.logprob) - math.exp(found.facts[0].logprob))


def test_the_answer_is_the_models_own_where_none_is_given(run):
    seen = tiny.seen("red")
    given = run.answer([ASKED], [[seen]], 3)[0]
    assert moai.ablate_facts(run, ASKED, [seen], max_new_tokens=3).answer == given


def test_facts_that_did_not_fit_take_nothing_away(run, monkeypatch):
    seen = Perception(
        segments=(Segment("red", 0.9, (0.2, 0.2, 0.8, 0.8)),),
        texts=(TextLine("EXIT", 0.2),),
        sources=(Source("tiny-ocr", "ocr", "1"),),
    )
    monkeypatch.setattr(run.processor, "max_aux_tokens", 1 + len(run.processor.perceptions.words([without_text(seen)])))
    found = moai.ablate_facts(run, ASKED, [seen], "red")
    by_role = {fact.role: fact for fact in found.facts}
    assert by_role["panoptic"].read and not by_role["ocr"].read
    assert (by_role["ocr"].logprob, by_role["ocr"].answer) == (found.logprob, "red")


def without_text(seen: Perception) -> Perception:
    return Perception(segments=seen.segments)


def test_a_fact_belongs_to_its_image_and_turns_may_be_many(run):
    turns = (Turn("user", (IMAGE, "What is it?")), Turn("assistant", "red"), Turn("user", (IMAGE, "And this?")))
    asked = Conversation(turns, (tiny.picture("red"), tiny.picture("blue")))
    reported = []
    found = moai.ablate_facts(
        run, asked, [None, tiny.seen("blue")], "blue", progress=lambda *done: reported.append(done)
    )
    assert [(fact.image, fact.fact.label) for fact in found.facts] == [(1, "blue")]
    assert reported == [(1, 1)]


def test_an_empty_answer_and_no_facts(run):
    with pytest.raises(PromptError, match="the answer is empty"):
        moai.ablate_facts(run, ASKED, [tiny.seen("red")], " ")
    assert moai.ablate_facts(run, ASKED, [Perception()], "red").facts == ()
