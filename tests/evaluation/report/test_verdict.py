"""Beats, matches, loses: by the interval, with the price in tokens."""

import pytest

from moai.evaluation.report.verdict import outcome, verdict


def summary(value, low, high, shape_high=1.0, tokens=None):
    difference = {"value": value, "low": low, "high": high}
    accuracy = {"on": {"value": 0.8}, "text": {"value": 0.8 - value}}
    groups = {"overall": {"accuracy": accuracy, "differences": {"on-text": difference}}}
    groups["shape"] = {"differences": {"on-text": {"value": -0.2, "low": -0.4, "high": shape_high}}}
    return {"name": "mixer", "groups": groups, "tokens": tokens or {}}


@pytest.mark.parametrize(
    ("low", "high", "word"),
    [
        (0.01, 0.2, "beats"),
        (-0.1, 0.2, "matches"),
        (0.0, 0.2, "matches"),
        (-0.2, 0.0, "matches"),
        (-0.2, -0.01, "loses to"),
    ],
)
def test_the_interval_decides(low, high, word):
    assert outcome({"low": low, "high": high}) == word


def test_the_sentence_has_both_accuracies_and_the_interval():
    assert verdict(summary(0.1, 0.05, 0.15), "text") == (
        "mixer beats text: 80.0 % against 70.0 %, +10.0 points (+5.0 to +15.0)."
    )
    assert "matches text" in verdict(summary(0.0, -0.1, 0.1), "text")
    assert "an interval that includes 0." in verdict(summary(0.0, -0.1, 0.1), "text")


def test_a_loss_is_said_overall_and_by_group():
    assert verdict(summary(-0.1, -0.2, -0.05), "text").startswith("mixer loses to text: 80.0 % against 90.0 %")
    assert "It loses on: shape." in verdict(summary(0.1, 0.05, 0.15, shape_high=-0.1), "text")


def test_the_price_is_said_when_both_are_known():
    tokens = {"on": {"read": 75.0}, "text": {"read": 150.0}}
    assert verdict(summary(0.0, -0.1, 0.1, tokens=tokens), "text").endswith(
        "It reads 75.0 tokens a question against 150.0: 50% of the tokens."
    )
    assert "tokens" not in verdict(summary(0.0, -0.1, 0.1, tokens={"on": {"read": 75.0}}), "text")
