"""Lines of text in the order in which people read them."""

from __future__ import annotations

import itertools

from moai.perception.words.reading_order import reading_order
from moai.types import TextLine


def line(text, x, y, height=0.1):
    return TextLine(text, 0.9, ((x, y), (x + 0.2, y), (x + 0.2, y + height), (x, y + height)))


def read(lines):
    return "".join(item.text for item in reading_order(lines))


def test_rows_from_top_to_bottom_then_from_left_to_right():
    page = [line("d", 0.5, 0.53), line("b", 0.6, 0.1), line("c", 0.1, 0.5), line("a", 0.2, 0.12), line("e", 0.3, 0.8)]
    assert read(page) == "abcde"


def test_the_order_they_come_in_changes_nothing():
    page = [line("a", 0.1, 0.1), line("b", 0.4, 0.13), line("c", 0.7, 0.08), line("d", 0.1, 0.4), line("e", 0.5, 0.42)]
    assert {read(order) for order in itertools.permutations(page)} == {"abcde"}


def test_a_low_line_beside_a_high_one_stands_in_its_row():
    assert read([line("b", 0.5, 0.2, 0.05), line("a", 0.1, 0.1, 0.25), line("c", 0.1, 0.4)]) == "abc"


def test_a_line_that_only_touches_a_row_starts_the_next_one():
    assert read([line("a", 0.5, 0.1), line("b", 0.1, 0.18)]) == "ab"


def test_nothing_and_a_single_line():
    assert reading_order([]) == []
    assert read([line("a", 0, 0)]) == "a"
