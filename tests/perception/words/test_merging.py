"""What several experts found of one thing is one thing in words, and the strongest facts stay."""

from __future__ import annotations

import pytest

from moai.perception.explaining.facts import find_facts
from moai.perception.words.merging import merge_findings
from moai.perception.words.token_budget import verbalize_within
from moai.perception.words.verbalize import verbalize
from moai.plugins import load_registry
from moai.recipe.sections import PerceptionSection
from moai.types import Detection, Mask, Perception, Relation, Segment, TextLine, merge_duplicates

BOX, PART, FAR = (0.1, 0.1, 0.5, 0.5), (0.1, 0.1, 0.5, 0.3), (0.6, 0.6, 0.9, 0.9)


@pytest.fixture(scope="module")
def registry():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MOAI_PLUGINS", "")
        return load_registry()


def line(text, box, score=0.9):
    x0, y0, x1, y1 = box
    return TextLine(text, score, ((x0, y0), (x1, y0), (x1, y1), (x0, y1)))


def compact(perception, registry, language="en", **options):
    style = "compact" if language == "en" else "paper"
    return verbalize(perception, language, style=style, registry=registry, merge=True, **options)


# --- objects ---------------------------------------------------------------------------------------------------------


def test_synonyms_and_kinds_are_one_object():
    mask = Mask(2, 2, (0, 4))
    found = Perception(
        segments=(Segment("couch", 0.6, BOX, mask), Segment("person", 0.9, FAR)),
        detections=(Detection("sofa", 0.8, BOX), Detection("woman", 0.7, FAR)),
    )
    assert merge_duplicates(found) == Perception(
        segments=(Segment("couch", 0.8, BOX, mask), Segment("woman", 0.9, FAR))
    )


def test_a_visible_part_and_its_whole_box_are_one_object_unless_one_has_a_better_partner():
    part = Segment("dog", 0.6, PART)
    assert merge_duplicates(Perception(segments=(part,), detections=(Detection("dog", 0.8, BOX),))).detections == ()
    both = Perception(segments=(part, Segment("dog", 0.6, BOX)), detections=(Detection("dog", 0.8, BOX),))
    assert [s.score for s in merge_duplicates(both).segments] == [0.6, 0.8]
    pairs = Perception(segments=(part,), detections=(Detection("dog", 0.8, BOX), Detection("dog", 0.7, PART)))
    assert [d.box for d in merge_duplicates(pairs).detections] == [BOX]


def test_two_experts_of_one_kind_and_two_findings_of_one_expert():
    one, two = Detection("car", 0.6, BOX, source="a"), Detection("red car", 0.8, BOX, source="b")
    assert merge_duplicates(Perception(detections=(one, two))).detections == (Detection("red car", 0.8, BOX),)
    again = Detection("car", 0.8, BOX, source="a")
    assert len(merge_duplicates(Perception(detections=(one, again))).detections) == 2
    unknown = Detection("car", 0.8, BOX)
    assert len(merge_duplicates(Perception(detections=(unknown, unknown))).detections) == 2


# --- text and tags ---------------------------------------------------------------------------------------------------


def test_text_on_a_sign_is_what_the_sign_says(registry):
    lines = (line("PARKING", (0.2, 0.3, 0.4, 0.4)), line("NO", (0.2, 0.2, 0.4, 0.28)), line("NIKE", FAR))
    found = Perception(detections=(Detection("sign", 0.7, BOX), Detection("person", 0.9, FAR)), texts=lines)
    assert compact(found, registry) == (
        "top left sign that says NO PARKING, bottom right person. bottom right text NIKE."
    )
    assert verbalize(found, style="compact", registry=registry) == (
        "top left sign, bottom right person. left text PARKING, top left text NO, bottom right text NIKE."
    )
    assert "“NO PARKING” 글자가 있는 sign" in compact(found, registry, "ko")


def test_the_smallest_of_several_things_has_the_text_and_lines_without_a_place_stay():
    small = (0.1, 0.1, 0.3, 0.3)
    found = Perception(
        segments=(Segment("poster", 0.7, BOX),),
        detections=(Detection("book", 0.7, small),),
        texts=(line("Cats", (0.15, 0.15, 0.25, 0.2)), TextLine("lost", 0.5), line("half", (0.3, 0.3, 0.9, 0.4))),
    )
    merged = merge_findings(found)
    assert [merged.segments[0].label, merged.detections[0].label] == ["poster", "book that says Cats"]
    assert [text.text for text in merged.texts] == ["lost", "half"]


def test_text_cannot_leave_its_fact(registry):
    found = Perception(detections=(Detection("sign", 0.7, BOX),), texts=(line("a\n{label}\u2028b", BOX),))
    assert compact(found, registry) == "top left sign that says a {label} b."


def test_tags_that_repeat_an_object_are_left_out():
    found = Perception(
        detections=(Detection("brown dog", 0.7, BOX), Detection("couch", 0.7, FAR), Detection("cat", 0.6, PART)),
        notes={"tags": ("dog", "sofa", "espresso", "tabby cat"), "other": ("dog",)},
    )
    assert merge_findings(found).notes == {"tags": ("espresso", "tabby cat"), "other": ("dog",)}
    only = Perception(detections=found.detections, notes={"tags": ("dog",)})
    assert merge_findings(only).notes == {}


# --- in the processor ------------------------------------------------------------------------------------------------


def encoder(**options):
    from moai.model.processor.perceptions import PerceptionEncoder  # imports torch, which the words do not need

    return PerceptionEncoder(str.split, None, style="compact", **options)


def test_nothing_is_merged_unless_the_recipe_says_so():
    assert PerceptionSection().merge is False
    found = Perception(segments=(Segment("dog", 0.5, BOX),), detections=(Detection("dog", 0.5, BOX),))
    assert encoder().verbalize([found]).text == "top left dog. top left dog."
    assert encoder(merge=True).verbalize([found]).text == "top left dog."


def test_equal_findings_of_two_images_are_two():
    segment = Perception(segments=(Segment("dog", 0.5, BOX),))
    detection = Perception(detections=(Detection("dog", 0.5, BOX),))
    assert encoder(merge=True).verbalize([segment, detection]).text == "top left dog. top left dog."


def test_facts_of_merged_words_are_found(registry):
    found = Perception(
        segments=(Segment("sign", 0.5, BOX),), detections=(Detection("sign", 0.5, BOX),), texts=(line("STOP", BOX),)
    )
    own = encoder(merge=True)
    words = own.verbalize([found])
    [span] = find_facts(own.merged([found]), words, "en", "compact", registry)
    assert words.text[span.start : span.end] == "top left sign that says STOP"


# --- the strongest facts ---------------------------------------------------------------------------------------------

SEEN = Perception(
    segments=(Segment("wall", 0.3, BOX), Segment("dog", 0.9, BOX)),
    detections=(Detection("cup", 0.8, PART), Detection("pen", 0.8, BOX)),
    relations=(Relation("dog", "near", "cup", 1.0),),
    texts=(TextLine("EXIT", 0.8), TextLine("blur", 0.2)),
    notes={"weather": ("It rains.",)},
)


def test_the_weakest_facts_go_first_whatever_their_role(registry):
    gone = verbalize_within(SEEN, 0, str.split, registry=registry, strongest=True).dropped
    named = [getattr(d.fact, "label", None) or getattr(d.fact, "text", None) or d.role for d in gone]
    assert named == ["scene_graph", "weather", "blur", "wall", "cup", "pen", "EXIT", "dog"]
    usual = verbalize_within(SEEN, 0, str.split, registry=registry).dropped
    assert [d.role for d in usual][:4] == ["scene_graph", "weather", "open_world", "open_world"]


def test_no_fact_is_cut_in_half(registry):
    whole = set(verbalize(SEEN, style="compact", registry=registry).replace(".", ",").split(", "))
    for budget in range(25):
        words = verbalize_within(SEEN, budget, str.split, style="compact", registry=registry, strongest=True)
        assert len(words.ids) <= budget
        assert {part for part in words.text.replace(".", ",").split(", ") if part} <= whole | {
            part + "," for part in whole
        }
