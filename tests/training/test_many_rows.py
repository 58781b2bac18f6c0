"""Training on a large file begins without reading it: memory is that of a small one, and one pool of rows is parsed."""

import importlib.util
from pathlib import Path

import pytest

PATH = Path(__file__).parents[2] / "benchmarks" / "data.py"


@pytest.mark.slow
def test_a_run_begins_and_goes_on_without_reading_a_large_file(tmp_path):
    spec = importlib.util.spec_from_file_location("benchmark_of_data", PATH)
    measured = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(measured)
    small = measured.measure(tmp_path / "small", 1000)
    large = measured.measure(tmp_path / "large", 200_000)
    pool = 8 * measured.BATCH
    assert small["parsed"] >= 1000, "few rows are read ahead, so that a bad one stops the run before its first step"
    assert large["parsed"] <= pool + measured.BATCH + 8, "a pool's lengths, its first batch, and the validation rows"
    assert large["megabytes"] - small["megabytes"] < 100
    again = measured.go_on(tmp_path / "large", 200_000 // measured.BATCH // 2)
    assert again["parsed"] <= pool + measured.BATCH + 8
