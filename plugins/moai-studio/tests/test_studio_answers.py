"""Pictures, findings and answers: what the page gets is what the library says, and each visitor's is their own."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import tiny
from moai_studio.findings import list_findings
from studio_visitor import Visitor, augmented, studio

from moai import IMAGE, Conversation, Mask, Perception, Segment, Turn


@pytest.fixture(scope="module")
def app():
    return studio()[0]


@pytest.fixture
def visitor(app):
    return Visitor(app)


def test_findings_have_their_expert_score_and_place(visitor):
    seen = visitor.events("perceive", run="0", picture=visitor.add(tiny.picture("red")))
    assert seen[0] == {
        "event": "experts",
        "picture": seen[0]["picture"],
        "names": ["tiny-panoptic", "tiny-print", "tiny-count"],
    }
    states = [(event["name"], event["state"]) for event in seen if event["event"] == "expert"]
    assert states[:2] == [("tiny-panoptic", "started"), ("tiny-panoptic", "finished")] and len(states) == 6
    found = {one["id"]: one for one in seen[-1]["findings"]}
    thing, text, pair, count = (found[name] for name in ("segments.0", "texts.0", "relations.0", "notes.count.0"))
    assert (thing["text"], thing["expert"], thing["score"], thing["kind"]) == ("red", "tiny-panoptic", 0.9, "object")
    assert thing["box"] == [0.25, 0.25, 0.75, 0.75] and len(thing["outline"]) == 1
    xs = [x for x, _ in thing["outline"][0]]
    assert min(xs) == pytest.approx(0.25, abs=0.07) and max(xs) == pytest.approx(0.75, abs=0.07)
    assert text["text"] == "<b>EXIT</b>" and len(text["polygon"]) == 4 and text["box"] == [0.1, 0.8, 0.4, 0.9]
    assert pair["ends"] == [thing["box"], thing["box"]] and pair["predicate"] == "near"
    assert (count["expert"], count["score"], count["text"]) == ("tiny-count", None, "1 things: red.")
    assert "red" in seen[-1]["words"] and all(one["origin"] == one["id"] for one in found.values())


@pytest.mark.parametrize("size", [3, 8, 700])
def test_outlines_follow_masks_of_any_size(size):
    pixels = np.zeros((size, size), bool)
    pixels[size // 3 : size - size // 3, size // 3 : size - size // 3] = True
    seen = Perception(segments=(Segment("square", 1.0, (0, 0, 1, 1), Mask.encode(pixels)),))
    [found] = list_findings(seen, {})
    points = np.array([point for line in found["outline"] for point in line])
    assert np.allclose([points.min(0), points.max(0)], [[1 / 3] * 2, [2 / 3] * 2], atol=0.14) and len(points) < 900


def test_an_answer_is_that_of_the_library_and_comes_in_pieces(visitor):
    name = visitor.add(tiny.picture("blue"))
    turns = [{"role": "user", "text": "What color is the shape?", "pictures": [name]}]
    events = visitor.events("ask", run="0", turns=turns, max_new_tokens=6)
    run, picture = augmented(), tiny.picture("blue")
    asked = Conversation.ask("What color is the shape?", [picture])
    expected = run.chat(asked, max_new_tokens=6)
    given = {event["event"]: event for event in events}
    assert given["answer"]["text"] == expected.text
    assert "".join(event["text"] for event in events if event["event"] == "token").strip() == expected.text
    [logprob] = run.loglikelihood([asked], [[expected.perception]], [expected.text])
    assert given["measured"]["probability"] == pytest.approx(2.718281828459045**logprob, rel=1e-3)
    assert given["measured"]["tokens"] == run.token_counts([asked], [[expected.perception]])[0]
    assert given["answer"]["seconds"]["answer"] >= given["answer"]["seconds"]["first"] > 0


def test_several_turns_and_pictures_are_one_conversation(visitor):
    red, blue = tiny.picture("red"), tiny.picture("blue")
    names = [visitor.add(red), visitor.add(blue)]
    turns = [
        {"role": "user", "text": "What is it?", "pictures": names[:1]},
        {"role": "assistant", "text": "red"},
        {"role": "user", "text": "And this?", "pictures": names},  # the first is shown already
    ]
    events = visitor.events("ask", run="0", turns=turns, max_new_tokens=6)
    same = (Turn("user", (IMAGE, "What is it?")), Turn("assistant", "red"), Turn("user", (IMAGE, "And this?")))
    expected = augmented().chat(same, [red, blue], max_new_tokens=6)
    assert next(event["text"] for event in events if event["event"] == "answer") == expected.text
    assert sum(event["event"] == "experts" for event in events) == 2


def test_a_picture_is_perceived_once_for_all_questions(visitor):
    name = visitor.add(tiny.picture("green"))
    assert any(event["event"] == "expert" for event in visitor.events("perceive", run="0", picture=name))
    assert set(visitor.ask("What color is it?", name)) == {"token", "answer", "measured"}


def test_two_people_at_once_get_their_own_answers(app):
    def visit(color: str) -> list[str]:
        visitor = Visitor(app)
        name = visitor.add(tiny.picture(color))
        return [visitor.ask("What color is the shape?", name)["answer"]["text"] for _ in range(4)]

    colors = ("red", "blue", "green")
    alone = [
        augmented().ask(tiny.picture(color), "What color is the shape?", max_new_tokens=6).text for color in colors
    ]
    assert len(set(alone)) > 1
    with ThreadPoolExecutor(3) as people:
        assert list(people.map(visit, colors)) == [[text] * 4 for text in alone]


def test_a_picture_is_seen_by_its_own_session_only(app, visitor):
    name, other = visitor.add(tiny.picture("red")), Visitor(app)
    shown = visitor.client.get(f"/api/pictures/{name}")
    assert shown.headers["content-type"] == "image/jpeg" and shown.content[:2] == b"\xff\xd8"
    assert other.client.get(f"/api/pictures/{name}").status_code == 422
    refused = other.last("perceive", run="0", picture=name)
    assert refused == {"event": "error", "message": "this picture is not held any more; add it again"}
    visitor.client.delete(f"/api/pictures/{name}")
    assert visitor.client.get(f"/api/pictures/{name}").status_code == 422


def test_examples_are_at_hand_and_are_pictures(visitor):
    listed = visitor.client.get("/api/state").json()["examples"]
    assert listed[-1] == {"id": "shapes", "title": "Drawn shapes"} and "grace_hopper" in {one["id"] for one in listed}
    assert visitor.client.get("/api/examples/shapes").content[:2] == b"\xff\xd8"
    held = visitor.client.post("/api/examples/shapes").json()
    assert (held["width"], held["height"]) == (480, 320)
    assert visitor.client.post("/api/examples/none").status_code == 422


def test_experts_alone_perceive_and_answer_nothing(app, monkeypatch):
    tiny.register()  # tests of other files make the registry anew
    monkeypatch.setattr("moai_studio.runs.installed_experts", lambda: ["tiny-panoptic"])
    monkeypatch.setattr("moai_studio.runs.default_store", lambda: None)
    visitor = Visitor(app)
    opened = visitor.last("runs/none")
    assert opened["answers"] is False and [one["name"] for one in opened["card"]["experts"]] == ["tiny-panoptic"]
    name = visitor.add(tiny.picture("red"))
    seen = visitor.last("perceive", run="none", picture=name)
    assert seen["findings"][0]["text"] == "red" and "red" in seen["words"]
    turns = [{"role": "user", "text": "What?", "pictures": [name]}]
    assert visitor.last("ask", run="none", turns=turns)["message"].startswith("experts alone answer nothing")
