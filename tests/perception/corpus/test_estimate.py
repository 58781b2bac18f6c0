"""Hours and disk of a larger corpus follow from what was measured, and from nothing else."""

from __future__ import annotations

import pytest

from moai.errors import CorpusError
from moai.perception.corpus.estimate import estimate, parse_count
from moai.perception.corpus.image_list import NAME, write_list
from moai.perception.corpus.manifest import Measurement, add_measurement

RUN = {"engine": "local", "threads": 1, "cores": 8, "device": "cpu", "load_seconds": 3.0}


@pytest.mark.parametrize(
    ("text", "count"), [("5000", 5000), ("10M", 10**7), ("2.5k", 2500), ("1,000", 1000), (" 1G ", 10**9)]
)
def test_numbers_of_images(text, count):
    assert parse_count(text) == count


@pytest.mark.parametrize("text", ["", "0", "ten", "-5", "5m", "1e6", "M"])
def test_what_is_no_number_of_images(text):
    with pytest.raises(CorpusError, match="no number of images"):
        parse_count(text)


def test_runs_of_the_last_kind_are_added_up(tmp_path):
    write_list(tmp_path, [("s", str(number), f"{number}.png") for number in range(100)], 10)
    one = Measurement(**RUN, workers=1, images=999, seconds=999.0, work_seconds=999.0, bytes=999)
    two = Measurement(**RUN, workers=2, images=30, seconds=10.0, work_seconds=18.0, bytes=3000)
    for run in (one, two, one, two):
        add_measurement(tmp_path, run)
    made = estimate(tmp_path, 10**6)
    assert (made.measured.images, made.measured.workers, made.measured.seconds) == (60, 2, 20.0)
    assert made.seconds_per_image == pytest.approx(0.6) and made.hours(4) == pytest.approx(0.6e6 / 4 / 3600)
    per_image = 100 + (tmp_path / NAME).stat().st_size / 100
    assert made.bytes == pytest.approx(per_image * 10**6)
    assert made.to_dict([1, 2])["hours"] == {"1": made.hours(1), "2": made.hours(2)}


def test_without_a_measurement_nothing_is_estimated(tmp_path):
    with pytest.raises(CorpusError, match="nothing was measured in .*--limit 1000"):
        estimate(tmp_path, 5)
    (tmp_path / "measured.json").write_text("[{}]")
    with pytest.raises(CorpusError, match="is damaged"):
        estimate(tmp_path, 5)
