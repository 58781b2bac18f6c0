"""What is counted, how it is worded, and that the expert keeps the contract."""

import pytest
from moai_tally import Tally, count, sentence_of
from PIL import Image

from moai.perception.words.verbalize import verbalize
from moai.testing import check_expert
from moai.types import Detection, Perception, Segment

PAGE = Image.new("RGB", (64, 64))


def perceived(*names, detections=()):
    step = 1 / max(1, len(names))
    boxes = [(i * step, 0.0, (i + 1) * step, 1.0) for i in range(len(names))]
    return Perception(
        segments=tuple(Segment(name, 0.9, box) for name, box in zip(names, boxes, strict=True)),
        detections=tuple(Detection(name, 0.8, box) for name, box in detections),
    )


def sentences_of(perception, **options):
    return Tally(**options).perceive([PAGE], [perception])[0].notes.get("count", ())


def test_it_keeps_the_contract():
    check_expert(Tally)


def test_shared_words_are_counted_and_the_highest_come_first():
    assert sentences_of(perceived("red square", "red circle", "blue circle")) == (
        "two red.",
        "two circles.",
        "one square.",
        "one blue.",
    )


def test_words_that_stand_in_the_same_names_are_one_phrase():
    assert sentences_of(perceived("dining table", "dining table", "cup")) == ("two dining tables.", "one cup.")


def test_whole_names_alone():
    assert sentences_of(perceived("red square", "red circle", "red circle"), words=False) == (
        "two red circles.",
        "one red square.",
    )


def test_at_most_so_many():
    assert sentences_of(perceived("red square", "red circle", "blue circle"), most=1) == ("two red.",)


def test_a_thing_that_two_experts_found_counts_once():
    once = perceived("car", detections=[("car", (0.0, 0.0, 1.0, 1.0))])
    assert sentences_of(once) == ("one car.",)
    twice = perceived("car", detections=[("car", (0.0, 0.0, 0.1, 0.1))])
    assert sentences_of(twice) == ("two cars.",)


def test_stuff_and_nothing_are_not_counted():
    assert sentences_of(Perception(segments=(Segment("sky", 0.9, (0.0, 0.0, 1.0, 1.0), None, False),))) == ()
    assert sentences_of(Perception()) == ()


def test_the_attributes_of_a_segment_are_words_of_its_name():
    assert sentences_of(Perception(segments=(Segment("star", 1.0, (0, 0, 1, 1), None, True, {"color": "red"}),))) == (
        "one red star.",
    )


@pytest.mark.parametrize(
    "phrase,number,noun,sentences",
    [
        ("person", 3, True, "three people."),
        ("glass", 2, True, "two glasses."),
        ("red", 4, False, "four red."),
        ("bus", 12, True, "12 buses."),
        ("tall glass", 1, True, "one tall glass."),
    ],
)
def test_wording(phrase, number, noun, sentences):
    assert sentence_of(phrase, number, noun) == sentences


@pytest.mark.parametrize("plural", ["skis", "scissors", "sunglasses", "jeans"])
def test_a_name_that_is_a_plural_stays_as_it_is(plural):
    assert sentence_of(plural, 2) == f"two {plural}."
    assert sentence_of("wine glass", 2) == "two wine glasses."


def test_counts_keep_the_order_of_mention():
    assert count(["a b", "c b"]) == [("a", 1), ("b", 2), ("c", 1)]


def test_its_sentences_are_spoken_in_every_style():
    perception = perceived("cup", "cup")
    both = Perception(
        segments=perception.segments, notes=Tally().perceive([PAGE], [perception])[0].notes, sources=perception.sources
    )
    assert verbalize(both, style="compact").endswith("two cups.") and verbalize(both).endswith("two cups.")
