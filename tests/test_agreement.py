"""The comparisons of ``agreement`` can fail, and pass where only last bits differ."""

import pytest
import torch
from agreement import Greedy, assert_greedy_agree, assert_near


def chosen(*steps):
    scores = torch.tensor([steps])
    return Greedy(scores.argmax(dim=-1), scores)


def test_last_bits_may_differ_and_no_more():
    expected = torch.tensor([1.0, -2.0])
    assert_near(expected + 8e-6, expected)
    for other in (expected + 1e-3, expected[:1]):
        with pytest.raises(AssertionError):
            assert_near(other, expected)


def test_a_near_tie_may_go_either_way_and_ends_the_row():
    expected = chosen([3.0, 2.99999, 0.0], [5.0, 1.0, 0.0])
    assert_greedy_agree(chosen([2.99999, 3.0, 0.0], [0.0, 1.0, 5.0]), expected)


@pytest.mark.parametrize(
    "found",
    [
        chosen([1.0, 3.0, 0.0], [5.0, 1.0, 0.0]),  # another token
        chosen([3.001, 1.0, 0.0], [5.0, 1.0, 0.0]),  # the same tokens from other scores
        chosen([3.0, 1.0, 0.0], [5.0, 1.0, 0.01]),  # a later step
        Greedy(torch.tensor([[1, 0]]), torch.tensor([[[3.0, 1.0, 0.0], [5.0, 1.0, 0.0]]])),  # not the best token
    ],
)
def test_other_answers_are_found(found):
    with pytest.raises(AssertionError):
        assert_greedy_agree(found, chosen([3.0, 1.0, 0.0], [5.0, 1.0, 0.0]))
