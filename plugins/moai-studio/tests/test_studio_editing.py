"""What if: findings are edited, what follows from them follows, and the answer is that to the edited perception."""

import pytest
import tiny
from moai_studio.editing import derive, edit
from moai_studio.messages import Edit
from studio_visitor import Visitor, augmented, studio

from moai import Conversation, Detection, Mask, Perception, Segment
from moai.errors import ExpertError, PromptError
from moai.types import Source


@pytest.fixture(scope="module")
def seen() -> Perception:
    return augmented().perceiver.perceive([tiny.picture("red")])[0]


def change(do: str, finding: str = "", **more) -> Edit:
    return Edit(do=do, finding=finding, **more)


def test_every_kind_is_written_anew(seen):
    texts = {"segments.0": "blue", "texts.0": "OPEN", "relations.0": "far from", "notes.count.0": "nine things."}
    edits = [change("write", name, text=text) for name, text in texts.items()]
    edited = edit(seen, edits).perception
    assert (edited.segments[0].label, edited.segments[0].mask) == ("blue", seen.segments[0].mask)
    assert edited.texts[0].text == "OPEN" and edited.relations[0].predicate == "far from"
    assert edited.notes == {"count": ("nine things.",)} and edited.sources == seen.sources


def test_things_move_with_their_masks_and_print_with_its_corners(seen):
    moved = edit(
        seen,
        [change("move", "segments.0", box=[0.5, 0.25, 1.0, 0.75]), change("move", "texts.0", box=[0.2, 0.1, 0.6, 0.2])],
    )
    [segment], [line] = moved.perception.segments, moved.perception.texts
    assert segment.box == (0.5, 0.25, 1.0, 0.75) and segment.mask.box() == (0.5, 0.25, 1.0, 0.75)
    assert line.polygon == ((0.2, 0.1), (0.6, 0.1), (0.6, 0.2), (0.2, 0.2))
    stretched = edit(seen, [change("move", "segments.0", box=[0.0, 0.0, 1.0, 1.0])]).perception
    assert stretched.segments[0].mask is None and stretched.segments[0].box == (0.0, 0.0, 1.0, 1.0)


def test_deleting_and_adding_keep_track_of_what_is_what(seen):
    made = edit(seen, [
        change("add", text="dog", box=[0.9, 0.1, 0.6, 0.4]), change("write", "added.0", text="cat"),
        change("delete", "segments.0"), change("add", text="STOP", kind="text", box=[0, 0, 0.2, 0.1]),
    ])  # fmt: skip
    [cat] = made.perception.segments  # a run with a panoptic expert alone knows things as segments
    assert (cat.label, cat.box, cat.score, cat.source) == ("cat", (0.6, 0.1, 0.9, 0.4), 1.0, "you")
    assert [line.text for line in made.perception.texts] == ["<b>EXIT</b>", "STOP"]
    origins = made.origins()
    assert origins["segments.0"] == "added.0" and origins["texts.0"] == "texts.0" and origins["texts.1"] == "added.1"


def test_a_detector_knows_things_as_detections():
    seen = Perception(detections=(Detection("dog", 0.5, (0, 0, 1, 1)),), sources=(Source("d", "open_world", "1"),))
    made = edit(seen, [change("add", text="cat", box=[0, 0, 1, 1])]).perception
    assert [one.label for one in made.detections] == ["dog", "cat"]


@pytest.mark.parametrize(("edits", "message", "kind"), [
    ([("write", "segments.9", {"text": "x"})], "not there any more", PromptError),
    ([("delete", "segments.0", {}), ("write", "segments.0", {"text": "x"})], "not there any more", PromptError),
    ([("move", "notes.count.0", {"box": [0, 0, 1, 1]})], "have a place", PromptError),
    ([("move", "relations.0", {"box": [0, 0, 1, 1]})], "have a place", PromptError),
    ([("add", "", {"text": "x"})], "needs a place", PromptError),
    ([("write", "segments.0", {"text": " "})], "non-empty", ExpertError),
    ([("write", "__class__", {"text": "x"})], "not there any more", PromptError),
])  # fmt: skip
def test_edits_that_do_not_fit(seen, edits, message, kind):
    with pytest.raises(kind, match=message):
        edit(seen, [change(do, finding, **more) for do, finding, more in edits])


def test_what_others_derive_follows(seen):
    run, picture = augmented(), tiny.picture("red")
    edited = edit(seen, [change("write", "segments.0", text="truck"), change("add", text="dog", box=[0, 0, 0.2, 0.2])])
    assert edited.perception.notes == seen.notes
    derived = derive(run.perceiver, picture, edited, seen)
    assert derived.perception.notes == {"count": ("2 things: truck, dog.",)}
    assert [(one.subject, one.source) for one in derived.perception.relations] == [("truck", "tiny-count")]
    assert [one.source for one in derived.perception.segments] == ["tiny-panoptic", "you"]
    origins = derived.origins()
    assert origins["segments.1"] == "added.0" and origins["notes.count.0"] is None and origins["relations.0"] is None


def test_what_was_derived_stays_where_it_was_edited_itself_or_nothing_else_was(seen):
    run, picture = augmented(), tiny.picture("red")
    for edits in (
        [change("write", "notes.count.0", text="nine.")],
        [change("write", "notes.count.0", text="nine."), change("delete", "segments.0")],
    ):
        edited = edit(seen, edits)
        assert derive(run.perceiver, picture, edited, seen) is edited


def test_an_answer_to_edited_findings_is_that_of_the_edited_perception():
    visitor = Visitor(studio()[0])
    name = visitor.add(tiny.picture("red"))
    edits = [{"do": "write", "finding": "segments.0", "text": "blue"}]
    shown = visitor.last("edited", run="0", picture=name, edits=edits)
    assert [one["text"] for one in shown["findings"]][:2] == ["blue", "blue near blue"]
    asked = visitor.ask("What color is the shape?", name, edits={name: edits}, instead="red")
    run, asking = augmented(), Conversation.ask("What color is the shape?", [tiny.picture("red")])
    [seen] = run.perceiver.perceive([tiny.picture("red")])
    changed = [Edit(**one) for one in edits]
    given = derive(run.perceiver, tiny.picture("red"), edit(seen, changed), seen).perception
    assert asked["answer"]["text"] == run.answer([asking], [[given]], 6)[0]
    [logprob] = run.loglikelihood([asking], [[given]], ["red"])
    assert asked["measured"]["instead"] == pytest.approx(2.718281828459045**logprob, rel=1e-3)
    plain = visitor.ask("What color is the shape?", name)
    assert plain["answer"]["text"] == run.answer([asking], [[seen]], 6)[0]  # nothing of the edits stays


def test_a_mask_that_leaves_the_picture_is_none():
    whole = Mask(4, 4, (0, 16))
    seen = Perception(segments=(Segment("sky", 0.9, (0.0, 0.0, 0.5, 0.5), whole),))
    made = edit(seen, [change("move", "segments.0", box=[0.5, 0.5, 1.0, 1.0])]).perception.segments[0]
    assert made.mask.decode().sum() == 4
