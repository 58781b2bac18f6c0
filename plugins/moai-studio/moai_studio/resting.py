"""Find out what an answer rests on: without perception, with another picture's, and without each fact.

Knows: runs and what they can compute: answers, probabilities, fact ablations and explanations.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moai import Conversation, Perception, ablate_facts
from moai.errors import PromptError
from moai.plugin_api import facts_of
from moai_studio.asking import answerer, perceive, prepare
from moai_studio.examples import examples
from moai_studio.findings import fact_id, words_of
from moai_studio.messages import RestsOn
from moai_studio.runs import Opened
from moai_studio.sessions import Picture, Session
from moai_studio.work import Work

if TYPE_CHECKING:
    from moai import Augmented

SMALL = 0.02  # a fall of the probability below this is none: half precision rounds, and nothing turns on it
LARGE = 0.25  # from here on a fact decides
MODULES = {"image": ("perception", "words", "image"), "question": ("perception", "image", "words")}


def rests_on(opened: Opened, session: Session, ask: RestsOn, work: Work) -> None:
    """Compute what an answer rests on; reports ``conditions``, ``attention``, ``progress`` and ``facts``."""
    run = answerer(opened)
    asked, given, shown = prepare(opened, session, ask, work)
    other = _another(opened, session, shown, work)
    with work.holding(opened.analysing):
        work.emit("conditions", conditions=compare(run, asked, given, other, ask))
        attention = attend(run, asked, given, shown)
        work.emit("attention", why=attention["why"], gates=attention["gates"])

        def progress(done: int, total: int) -> None:
            work.emit("progress", done=done, total=total)

        limit = {"max_new_tokens": ask.max_new_tokens, "progress": progress}
        found = ablate_facts(run, asked, given, ask.answer, batch_size=8, **limit)
    facts = []
    for fact in found.facts:
        name = fact_id(fact.role, fact.number, fact.fact)
        share, even = attention["shares"].get((fact.image, name), (None, None))
        facts.append(
            {
                "picture": shown[fact.image],
                "finding": name,
                "text": words_of(fact.fact),
                "read": fact.read,
                "fall": round(found.fall(fact), 4),
                "answer": fact.answer,
                "share": share,
                "even": even,
            }
        )
    work.emit("facts", probability=math.exp(found.logprob), facts=facts, verdict=verdict(ask.answer, facts))


def _another(opened: Opened, session: Session, shown: Sequence[str], work: Work) -> tuple[str, Perception] | None:
    """Perceive a picture that the conversation does not show: one of the session's, or an example."""
    for name, picture in reversed(list(session.pictures.items())):
        if name not in shown:
            return "another of your pictures", perceive(opened, picture, work)
    keys = [session.picture(name).image.tobytes() for name in shown]
    for example in examples().values():
        image = example.picture()
        if image.tobytes() not in keys:
            return f"the example “{example.title}”", perceive(opened, Picture(f"example-{example.id}", image), work)
    return None


def compare(
    run: Augmented,
    asked: Conversation,
    given: Sequence[Perception],
    other: tuple[str, Perception] | None,
    ask: RestsOn,
) -> list[dict[str, Any]]:
    """Answer with perception, without, and with another picture's, and give the first answer's probability in each."""
    named: list[tuple[str, str, list[Perception | None]]] = [
        ("on", "as found", list(given)),
        ("off", "no perception", [None] * len(given)),
    ]
    if other is not None:
        named.append(("other", other[0], [other[1]] * len(given)))
    conversations, perceptions = [asked] * len(named), [row for _, _, row in named]
    texts = run.answer(conversations, perceptions, ask.max_new_tokens)
    scores = run.loglikelihood(conversations, perceptions, [ask.answer] * len(named))
    return [
        {"condition": name, "about": about, "answer": text, "probability": math.exp(score)}
        for (name, about, _), text, score in zip(named, texts, scores, strict=True)
    ]


def attend(run: Augmented, asked: Conversation, given: Sequence[Perception], shown: Sequence[str]) -> dict[str, Any]:
    """Compute what the mixers attend to: each fact's share of it, and the gates.

    Returns:
        ``shares``: (image, finding) -> its share and the share it would have if all words had equal weight; ``gates``
        per layer; and ``why`` there are none, where there are none.
    """
    try:
        [explanation] = run.explain([asked], [given])
    except PromptError as error:
        return {"shares": {}, "gates": _gates(run, asked, given), "why": str(error)}
    left = [(image, fact_id(*one), one.fact) for image, perception in enumerate(given) for one in facts_of(perception)]
    shares: dict[tuple[int, str], tuple[float, float]] = {}
    for number, span in enumerate(explanation.findings):
        own = [place for place, word in enumerate(explanation.words) if word.finding == number]
        same = next((one for one in left if one[2] == span.fact), None)
        if same is not None:
            left.remove(same)
            share, even = (round(float(values[own].sum()), 4) for values in (explanation.shares, explanation.even))
            shares[same[0], same[1]] = (share, even)
    gates = [
        {
            "layer": layer.layer,
            "image": _means(layer.image_gates, "image"),
            "question": _means(layer.question_gates, "question"),
        }
        for layer in explanation.layers
    ]
    return {"shares": shares, "gates": gates, "why": None}


def _gates(run: Augmented, asked: Conversation, given: Sequence[Perception]) -> list[dict[str, Any]]:
    found = run.gate_weights([asked], [given])
    return [
        {"layer": layer, "image": _means(image, "image"), "question": _means(question, "question")}
        for layer, (image, question) in found.items()
    ]


def _means(gates: Any, stream: str) -> dict[str, float] | None:
    """Average gates ``(T, 3)`` over the tokens; None where there are no tokens."""
    if not len(gates):
        return None
    return dict(zip(MODULES[stream], (round(float(value), 4) for value in gates.mean(axis=0)), strict=True))


def verdict(answer: str, facts: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Say in a sentence or two what the answer rests on, and whether attention points to the same.

    Args:
        answer: itself.
        facts: as ``rests_on`` reports them, those with the largest fall first.
    """
    read = [fact for fact in facts if fact["share"] is not None]
    attended = max(read, key=lambda fact: fact["share"] - fact["even"], default=None)
    top = facts[0] if facts and facts[0]["fall"] >= SMALL else None
    says: dict[str, Any] = {"top": top and top["finding"], "attended": attended and attended["finding"]}
    if not facts:
        return {**says, "agree": None, "text": "The experts found nothing, so the answer rests on the host alone."}
    if top is None:
        text = f"No single fact decides: whichever is left out, “{answer}” loses less than 2 points."
        if attended is not None:
            text += f" Attention points to “{attended['text']}” all the same."
        return {**says, "agree": False if attended else None, "text": text}
    rests = "rests on" if top["fall"] >= LARGE else "leans most on"
    text = f"The answer {rests} “{top['text']}”: without it “{answer}” loses {_points(top['fall'])}"
    text += f" and the answer is “{top['answer'] or 'nothing'}”." if top["answer"] != answer else "."
    if attended is None:
        return {**says, "agree": None, "text": text}
    if attended["text"] == top["text"]:
        return {**says, "agree": True, "text": f"{text} Attention points to the same fact."}
    change = "changes nothing"
    if abs(attended["fall"]) >= SMALL:
        change = f"{'costs' if attended['fall'] > 0 else 'adds'} {_points(attended['fall'])}"
    text += f" Attention disagrees: it points to “{attended['text']}”, and leaving that out {change}."
    return {**says, "agree": False, "text": text}


def _points(fall: float) -> str:
    points = abs(round(100 * fall))
    return f"{points} point{'' if points == 1 else 's'}"
