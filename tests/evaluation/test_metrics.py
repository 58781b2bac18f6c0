"""Scores and intervals: known values, clusters that widen an interval, and no certainty out of nothing."""

import math

import numpy as np
import pytest

from moai.evaluation.metrics import (
    accuracy_interval,
    bootstrap_interval,
    exact_match,
    mcnemar,
    normalize,
    paired_difference,
)


@pytest.mark.parametrize(
    ("text", "normal"),
    [
        (" Yes. ", "yes"),
        ("The  RED circle!", "red circle"),
        ("3.5", "3.5"),
        ("1,000 m.", "1,000 m"),
        ("a\nb", "b"),
        ("theatre", "theatre"),
        ("\uff39\uff25\uff33", "yes"),
        ("snake_case", "snake case"),
        ("?!", ""),
    ],
)
def test_normalize(text, normal):
    assert normalize(text) == normal


@pytest.mark.parametrize(
    ("prediction", "answer", "right"),
    [
        ("Yes.", "yes", True),
        ("no", "yes", False),
        ("", "yes", False),
        ("yes it is", "yes", False),
        ("A", "a", False),
        ("a", "a", True),
        ("", "?", False),
        ("the", "a", False),
    ],
)
def test_exact_match(prediction, answer, right):
    assert exact_match(prediction, answer) is right


def test_the_interval_covers_the_mean_and_matches_the_normal_approximation():
    values = np.random.default_rng(0).random(400) < 0.3
    low, high = bootstrap_interval(values)
    spread = 1.96 * math.sqrt(values.mean() * (1 - values.mean()) / 400)
    assert low == pytest.approx(values.mean() - spread, abs=0.01)
    assert high == pytest.approx(values.mean() + spread, abs=0.01)


def test_the_interval_is_seeded():
    values = np.random.default_rng(0).random(50)
    assert bootstrap_interval(values, seed=1) == bootstrap_interval(values, seed=1)
    assert bootstrap_interval(values, seed=1) != bootstrap_interval(values, seed=2)


def test_a_higher_level_is_a_wider_interval():
    values = np.random.default_rng(0).random(50)
    narrow, wide = bootstrap_interval(values, level=0.5), bootstrap_interval(values, level=0.99)
    assert wide[0] < narrow[0] < narrow[1] < wide[1]


def test_questions_about_one_image_count_as_one_draw():
    values = np.repeat(np.random.default_rng(0).random(40) < 0.5, 10)
    groups = np.repeat(np.arange(40), 10).tolist()
    alone, clustered = bootstrap_interval(values), bootstrap_interval(values, groups=groups)
    assert clustered[1] - clustered[0] > 2.5 * (alone[1] - alone[0])


def test_groups_of_one_change_nothing():
    values = np.random.default_rng(0).random(30)
    assert bootstrap_interval(values, groups=list(range(30))) == bootstrap_interval(values)


def test_groups_need_not_be_neighbours_nor_of_equal_size():
    values = [1.0, 0.0, 1.0, 0.0, 0.0]
    groups = ["a", "b", "a", "b", "b"]
    sums = bootstrap_interval(values, groups=groups)
    assert sums == (0.0, 1.0)
    assert bootstrap_interval([0.0] * 5, groups=groups) == (0.0, 0.0)


def test_all_right_is_not_certainty():
    low, high = accuracy_interval([True] * 40)
    assert high == 1.0
    assert low == pytest.approx(40 / (40 + 1.959964**2))
    assert accuracy_interval([False] * 40)[1] == pytest.approx(1 - low)
    assert accuracy_interval([True] * 40, groups=["one image"] * 40)[0] == pytest.approx(1 / (1 + 1.959964**2))


def test_a_mixed_accuracy_uses_the_bootstrap():
    right = [True, False] * 30
    assert accuracy_interval(right, seed=5) == bootstrap_interval(right, seed=5)


def test_pairing_is_sharper_than_two_separate_intervals():
    rng = np.random.default_rng(0)
    off = rng.random(300) < 0.5
    on = off | (rng.random(300) < 0.1)
    mean, low, high = paired_difference(on, off)
    assert mean == pytest.approx(on.mean() - off.mean())
    assert 0 < low < mean < high
    assert high - low < bootstrap_interval(on)[1] - bootstrap_interval(on)[0]


def test_mcnemar_is_the_exact_binomial_test():
    on = [True] * 12 + [False] * 3 + [True] * 20 + [False] * 5
    off = [False] * 12 + [True] * 3 + [True] * 20 + [False] * 5
    only_on, only_off, p = mcnemar(on, off)
    assert (only_on, only_off) == (12, 3)
    assert p == pytest.approx(2 * sum(math.comb(15, k) for k in range(4)) / 2**15)
    assert mcnemar(off, on)[2] == p


def test_mcnemar_at_the_edges():
    assert mcnemar([True, False], [True, False]) == (0, 0, 1.0)
    assert mcnemar([True, False], [False, True]) == (1, 1, 1.0)
    assert mcnemar([True] * 9000, [False] * 9000)[2] < 1e-300


def test_wrong_lengths_and_nothing_at_all_are_refused():
    with pytest.raises(ValueError, match="at least one value"):
        bootstrap_interval([])
    with pytest.raises(ValueError, match="as many groups"):
        bootstrap_interval([1.0, 0.0], groups=["a"])
    with pytest.raises(ValueError, match="same length"):
        paired_difference([1.0], [1.0, 0.0])
    with pytest.raises(ValueError, match="same length"):
        mcnemar([True], [True, False])
