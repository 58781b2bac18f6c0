"""Answers survive an interruption, and only those of the same evaluation are found again."""

import pytest

from moai.errors import CheckpointError
from moai.evaluation.journal import Journal, digest

ARGUMENTS = {"seed": 0, "conditions": ["on", "off"]}


def test_rows_are_found_again_and_forgotten_at_the_end(tmp_path):
    Journal(tmp_path / "eval", ARGUMENTS).append([{"id": "a", "text": "x\u2028\ud800y"}, {"id": "b"}])
    journal = Journal(tmp_path / "eval", dict(reversed(ARGUMENTS.items())))
    assert journal.rows == [{"id": "a", "text": "x\u2028\ud800y"}, {"id": "b"}]
    journal.close()
    assert Journal(tmp_path / "eval", ARGUMENTS).rows == [] and not list((tmp_path / "eval").iterdir())


def test_other_arguments_never_see_them(tmp_path):
    Journal(tmp_path, ARGUMENTS).append([{"id": "a"}])
    for changed in ({"seed": 1}, {"conditions": ["off", "on"]}, {"more": 1}):
        assert Journal(tmp_path, {**ARGUMENTS, **changed}).rows == []
    assert len(Journal(tmp_path, ARGUMENTS).rows) == 1


def test_a_line_that_was_cut_short_is_dropped_and_the_next_one_is_whole(tmp_path):
    journal = Journal(tmp_path, ARGUMENTS)
    journal.append([{"id": "a"}, {"id": "b"}])
    with open(journal.path, "r+b") as file:
        file.truncate(journal.path.stat().st_size - 4)
    again = Journal(tmp_path, ARGUMENTS)
    again.append([{"id": "c"}])
    assert [row["id"] for row in Journal(tmp_path, ARGUMENTS).rows] == ["a", "c"]


def test_damage_and_a_folder_that_is_none_are_sentences(tmp_path):
    journal = Journal(tmp_path, ARGUMENTS)
    journal.path.write_text("{\n")
    with pytest.raises(CheckpointError, match="damaged .* delete it"):
        Journal(tmp_path, ARGUMENTS)
    with pytest.raises(CheckpointError, match="cannot be written"):
        Journal(journal.path / "eval", ARGUMENTS)


def test_the_digest_tells_things_and_their_order_apart():
    assert digest(["a", "b"]) == digest(iter(["a", "b"])) != digest(["b", "a"]) != digest(["ba"])
