"""Score bins, gate histograms and examples: everything is counted once, and the worst comes first."""

import io
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from moai.evaluation.calibration import calibrate
from moai.evaluation.gates import sample_gates
from moai.evaluation.paired import Record
from moai.evaluation.report.page import gains, regressions
from moai.types import Sample


def record(index, on, off, score=None, image=None):
    texts = {"on": "x" if on else "y", "off": "x" if off else "y"}
    sure = None if score is None else {"mean": score, "least": score / 2, "items": 2}
    return Record(f"{index:03}", image or f"i{index}", "color", "q?", "x", texts, confidence=sure)


def test_bins_hold_every_scored_question_once_in_order_of_score():
    made = [record(i, on=i >= 50, off=False, score=i / 100) for i in range(100)] + [record(100, True, False)]
    found = calibrate(made, resamples=200)
    assert found["without_findings"] == 1
    assert [b["n"] for b in found["mean"]] == [20] * 5
    assert [b["value"] for b in found["mean"]] == pytest.approx([0, 0, 0.5, 1, 1])
    assert (found["mean"][0]["from"], found["mean"][4]["to"], found["least"][4]["to"]) == (0, 0.99, 0.495)
    assert all(b["low"] <= b["value"] <= b["high"] for b in found["mean"])


def test_equal_scores_share_a_bin():
    made = [record(i, True, False, score=1.0 if i < 90 else 0.5) for i in range(100)]
    assert [(b["from"], b["to"], b["n"]) for b in calibrate(made, resamples=200)["mean"]] in (
        [(0.5, 1.0, 100)],
        [(0.5, 0.5, 10), (1.0, 1.0, 90)],
    )


def test_nothing_to_calibrate_is_none():
    assert calibrate([record(0, True, False)]) is None
    assert calibrate([replace(record(0, True, False, 0.5), predictions={"on": "x"})]) is None


def test_regressions_are_right_off_and_wrong_on_the_surest_first_and_each_image_once_before_twice():
    made = [
        record(0, on=False, off=True, score=0.5),
        record(1, on=False, off=True, score=0.9, image="a"),
        record(2, on=False, off=True, score=0.8, image="a"),
        record(3, on=True, off=False, score=0.9),
        record(4, on=True, off=True, score=0.9),
        record(5, on=False, off=True),
    ]
    assert [r.id for r in regressions(made)] == ["001", "000", "005", "002"]
    assert [r.id for r in regressions(made, most=2)] == ["001", "000"]
    assert [r.id for r in gains(made)] == ["003"]
    assert regressions([replace(r, predictions={"on": "y"}) for r in made]) == []


def test_a_worse_score_of_the_data_sets_metric_comes_first():
    far = replace(record(0, False, True, 0.1), scores={"on": 0.0, "off": 1.0})
    near = replace(record(1, False, True, 0.9), scores={"on": 0.9, "off": 1.0})
    assert regressions([near, far]) == [far, near]


class Gated:
    def gate_weights(self, conversations, perceptions):
        assert [len(c.images) for c in conversations] == [len(given) for given in perceptions]
        image = np.tile([0.5, 0.3, 0.2], (4 * len(conversations), 1))
        return {8: (image, image[:, ::-1]), 0: (image, image)}


def test_gate_histograms_are_shares_per_layer_stream_and_module():
    file = io.BytesIO()
    Image.new("RGB", (4, 4)).save(file, "PNG")
    samples = [Sample.from_question(str(i), file.getvalue(), "i", "q?", "x", "color") for i in range(130)]
    found = sample_gates(Gated(), samples, {"i": None})
    assert found["questions"] == 44 and [layer["layer"] for layer in found["layers"]] == [0, 8]
    last = found["layers"][1]
    assert last["image"]["auxiliary"]["mean"] == pytest.approx(0.5)
    assert last["language"]["auxiliary"]["mean"] == pytest.approx(0.2)
    assert list(last["language"]) == ["auxiliary", "image", "language"]
    assert last["image"]["auxiliary"]["histogram"][10] == 1.0
    assert sum(last["image"]["language"]["histogram"]) == pytest.approx(1)
    assert sample_gates(object(), samples, {}) is None
