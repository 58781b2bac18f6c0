"""Sizes of memory: read, formatted and measured."""

from __future__ import annotations

import subprocess
import sys

import pytest
from fake_experts import MB

from moai.errors import ExpertError
from moai.perception.running.memory import allocated_bytes, format_size, parse_size


def test_resident_memory_grows_with_what_is_held():
    # In a process of its own: late in a long test run, numpy gets memory back that this process never returned.
    code = (
        "import numpy as np\n"
        "from moai.perception.running.memory import allocated_bytes\n"
        "before = allocated_bytes('cpu')\n"
        f"block = np.ones({64 * MB}, np.uint8)\n"
        "print(allocated_bytes('cpu') - before, block[0])"
    )
    grown, one = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert int(grown) > 50 * MB and one == "1"
    assert allocated_bytes("meta") is None


@pytest.mark.parametrize("text,size", [("8GB", 8 * 10**9), ("1.5 GiB", 3 * 2**29), ("10", 10), ("2k", 2000), (0, 0)])
def test_sizes_are_read(text, size):
    assert parse_size(text) == size


@pytest.mark.parametrize("text", ["8 apples", "", "-1", -1, "GB", True, None])
def test_a_wrong_size_is_an_error_of_one_sentence(text):
    with pytest.raises(ExpertError, match="write a number of bytes, or one such as 8GB"):
        parse_size(text)


def test_sizes_are_formatted():
    assert [format_size(size) for size in (999, 1500, 8 * 10**9, 123456789)] == ["999 B", "1.5 KB", "8.0 GB", "123 MB"]
