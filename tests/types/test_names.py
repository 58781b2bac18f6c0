"""Names of one thing: words, synonyms, kinds."""

from __future__ import annotations

import pytest

from moai.types.names import longer, same_thing


@pytest.mark.parametrize(
    "one, other",
    [
        ("dog", "Dog"), ("dog", "brown dog"), ("couch", "sofa"), ("brown sofa", "couch"), ("mobile", "cell phone"),
        ("person", "woman"), ("tall woman", "person"), ("dog", "golden retriever"), ("wall-other-merged", "wall"),
        ("hot dog", "hotdog"), ("강아지", "갈색 강아지"),
    ],
)  # fmt: skip
def test_names_of_one_thing(one, other):
    assert same_thing(one, other) and same_thing(other, one)


@pytest.mark.parametrize(
    "one, other",
    [("dog", "cat"), ("dog", "hot dog"), ("bear", "teddy bear"), ("man", "woman"), ("red car", "blue car"), ("?", "?")],
)
def test_names_of_two_things(one, other):
    assert not same_thing(one, other) and not same_thing(other, one)


def test_which_name_says_more():
    assert longer("dog", "brown dog") and longer("person", "woman") and longer("dog", "golden retriever")
    assert not longer("brown dog", "dog") and not longer("woman", "person") and not longer("couch", "sofa")
    assert not longer("brown dog", "puppy")  # neither has what the other has
