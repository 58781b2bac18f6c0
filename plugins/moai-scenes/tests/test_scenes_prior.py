"""What questions give away without an image, on hand-made samples."""

from __future__ import annotations

from moai_scenes.prior import question_prior

from moai.types import Sample


def samples(*rows):
    return [
        Sample.from_question(str(k), b"", "i", question, answer, kind)
        for k, (question, answer, kind) in enumerate(rows)
    ]


def test_the_commonest_answer_of_the_same_question_is_given():
    train = samples(("a?", "x", "k"), ("a?", "y", "k"), ("a?", "y", "k"), ("b?", "x", "k"))
    assert question_prior(train, samples(("a?", "y", "k"), ("a?", "x", "k"), ("b?", "x", "k"), ("b?", "y", "k"))) == {
        "k": 0.5
    }


def test_a_new_question_gets_the_commonest_answer_of_its_kind_and_a_new_kind_none():
    train = samples(("a?", "x", "k"), ("b?", "x", "k"), ("c?", "y", "other"))
    assert question_prior(train, samples(("new?", "x", "k"), ("new?", "y", "nothing"))) == {"k": 1.0, "nothing": 0.0}


def test_equal_counts_go_to_the_first_in_the_alphabet():
    train = samples(("a?", "yes", "k"), ("a?", "no", "k"))
    assert question_prior(train, samples(("a?", "no", "k"))) == {"k": 1.0}
