"""What an answer rests on: the numbers are the library's, and the sentence says what they say."""

import pytest
import tiny
from moai_studio.resting import verdict
from studio_visitor import Visitor, augmented, studio

from moai import Conversation, ablate_facts

QUESTION = "What color is the shape?"


@pytest.fixture(scope="module")
def rested() -> tuple[dict[str, list[dict]], str]:
    visitor = Visitor(studio()[0])
    name = visitor.add(tiny.picture("red"))
    turns = [{"role": "user", "text": QUESTION, "pictures": [name]}]
    events = visitor.events("rests-on", run="0", turns=turns, answer="red", max_new_tokens=4)
    by_name: dict[str, list[dict]] = {}
    for event in events:
        by_name.setdefault(event["event"], []).append(event)
    return by_name, name


def test_three_conditions_stand_side_by_side(rested):
    on, off, other = rested[0]["conditions"][0]["conditions"]
    assert [one["condition"] for one in (on, off, other)] == ["on", "off", "other"]
    assert other["about"].startswith("the example")
    run, asked = augmented(), Conversation.ask(QUESTION, [tiny.picture("red")])
    [seen] = run.perceiver.perceive([tiny.picture("red")])
    for one, given in ((on, seen), (off, None)):
        assert one["answer"] == run.answer([asked], [[given]], 4)[0]
        [logprob] = run.loglikelihood([asked], [[given]], ["red"])
        assert one["probability"] == pytest.approx(2.718281828459045**logprob, rel=1e-3)


def test_each_fact_is_left_out(rested):
    events, name = rested
    facts = events["facts"][0]["facts"]
    run, asked = augmented(), Conversation.ask(QUESTION, [tiny.picture("red")])
    [seen] = run.perceiver.perceive([tiny.picture("red")])
    expected = ablate_facts(run, asked, [seen], "red", max_new_tokens=4)
    assert len(facts) == len(expected.facts) == 4 and {fact["picture"] for fact in facts} == {name}
    assert [fact["fall"] for fact in facts] == pytest.approx([expected.fall(one) for one in expected.facts], abs=1e-3)
    assert events["progress"][-1]["done"] == events["progress"][-1]["total"] == 4


def test_attention_is_put_beside_it(rested):
    events, _ = rested
    [explanation] = augmented().explain(
        [Conversation.ask(QUESTION, [tiny.picture("red")])], [augmented().perceiver.perceive([tiny.picture("red")])]
    )
    shares = {source.text: source.share for source in explanation.sources()}
    assert shares
    facts = {fact["finding"]: fact for fact in events["facts"][0]["facts"]}
    [thing] = [share for text, share in shares.items() if text.endswith("red") and "near" not in text]
    assert facts["segments.0"]["share"] == pytest.approx(thing, abs=1e-3)
    [attention] = events["attention"]
    assert attention["why"] is None and [layer["layer"] for layer in attention["gates"]] == [0, 2]
    for layer in attention["gates"]:
        assert sum(layer["question"].values()) == pytest.approx(1, abs=1e-3)
        assert sum(layer["image"].values()) == pytest.approx(1, abs=1e-3)


def test_earlier_turns_have_no_attention_but_all_else():
    visitor = Visitor(studio()[0])
    name = visitor.add(tiny.picture("red"))
    turns = [
        {"role": "user", "text": "What?", "pictures": [name]},
        {"role": "assistant", "text": "red"},
        {"role": "user", "text": QUESTION},
    ]
    events = {e["event"]: e for e in visitor.events("rests-on", run="0", turns=turns, answer="red", max_new_tokens=2)}
    assert "one question at a time" in events["attention"]["why"] and len(events["attention"]["gates"]) == 2
    assert {fact["share"] for fact in events["facts"]["facts"]} == {None} and events["facts"]["verdict"][
        "agree"
    ] is None


def test_an_empty_answer_is_refused():
    visitor = Visitor(studio()[0])
    turns = [{"role": "user", "text": QUESTION, "pictures": [visitor.add(tiny.picture("red"))]}]
    assert "empty" in visitor.last("rests-on", run="0", turns=turns, answer=" ")["message"]


def fact(finding: str, fall: float, share: float | None = None, answer: str = "bus", even: float = 0.2) -> dict:
    return {"finding": finding, "text": f"a {finding}", "fall": fall, "share": share, "even": even, "answer": answer}


RESTS, NONE = (
    "The answer rests on “a x”: without it “bus” loses",
    "No single fact decides: whichever is left out, “bus”",
)
DISAGREES = "Attention disagrees: it points to “a y”, and leaving that out"


@pytest.mark.parametrize(
    ("facts", "agree", "text"),
    [
        ([], None, "The experts found nothing, so the answer rests on the host alone."),
        (
            [fact("x", 0.62, 0.5, "car"), fact("y", 0.0, 0.1)],
            True,
            f"{RESTS} 62 points and the answer is “car”. Attention points to the same fact.",
        ),
        ([fact("x", 0.3, 0.1), fact("y", 0.0, 0.9)], False, f"{RESTS} 30 points. {DISAGREES} changes nothing."),
        ([fact("x", 0.3, 0.1), fact("y", 0.05, 0.9)], False, f"{RESTS} 30 points. {DISAGREES} costs 5 points."),
        ([fact("x", 0.3, 0.1), fact("y", -0.21, 0.9)], False, f"{RESTS} 30 points. {DISAGREES} adds 21 points."),
        ([fact("x", 0.02)], None, "The answer leans most on “a x”: without it “bus” loses 2 points."),
        (
            [fact("x", 0.01, 0.9)],
            False,
            f"{NONE} loses less than 2 points. Attention points to “a x” all the same.",
        ),
        ([fact("x", 0.3, None, "")], None, f"{RESTS} 30 points and the answer is “nothing”."),
    ],
)
def test_the_sentence_says_what_the_numbers_say(facts, agree, text):
    said = verdict("bus", facts)
    assert (said["agree"], said["text"]) == (agree, text)
