"""Bad rows that a recipe tolerates: replaced by the next good one, written down once, known after an interruption."""

from __future__ import annotations

import json
import multiprocessing
import time

import pytest

from moai.data.check import check_images
from moai.data.quarantine import FILE, Quarantine, Tolerated
from moai.errors import DataError

GOOD = {"image": "red.png", "question": "What color?", "answer": "red"}
GONE = {**GOOD, "image": "gone.png"}
DAMAGED = {**GOOD, "image": "damaged.png"}


@pytest.fixture
def rows(photos, opened):
    """A file of rows beside the pictures, opened; one picture is damaged."""
    (photos / "damaged.png").write_bytes((photos / "red.png").read_bytes()[:80])

    def write(*given):
        path = photos / "rows.jsonl"
        path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in given))
        return opened("jsonl", path)

    return write


def tolerated(samples, share, folder=None, fresh=True, examine=check_images):
    quarantine = Quarantine(share)
    quarantine.rows += len(samples)
    if folder is not None:
        quarantine.open(folder, fresh=fresh)
    return Tolerated(samples, quarantine, examine)


def written(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_the_next_good_row_takes_the_place_of_a_bad_one(rows, tmp_path, photos):
    samples = rows("{", *({**GOOD, "id": n} for n in range(1, 6)), GONE, DAMAGED)
    view = tolerated(samples, 0.5, tmp_path)
    assert [view[n].id for n in (7, 6, 0, 3)] == ["1", "1", "1", "3"], "after the last row comes the first"
    lines = written(tmp_path)
    assert [line["line"] for line in lines] == [8, 1, 7] and {line["file"] for line in lines} == {
        str(photos / "rows.jsonl")
    }
    assert "no JSON" in lines[1]["reason"] and "gone.png is missing" in lines[2]["reason"]
    assert [sample.id for sample in view.all_good()] == ["1", "2", "3", "4", "5"]
    assert len(written(tmp_path)) == 3, "each bad row once"
    assert view.digest == samples.digest != ""
    texts = tolerated(samples, 0.5, examine=None)
    assert texts[7].id == "rows.jsonl:8" and not texts.quarantine.reasons, "its images are not opened"


def test_a_run_that_goes_on_knows_what_it_left_out_and_stops_at_the_same_row(rows, tmp_path):
    samples = rows(GONE, GOOD, "{", GOOD, GOOD, DAMAGED, GOOD, GOOD, GOOD, GOOD)
    first = tolerated(samples, 0.2, tmp_path)
    first[0], first[2]
    with open(tmp_path / FILE, "a") as file:
        file.write('{"file": "cut')  # the process was killed while it wrote
    again = tolerated(samples, 0.2, tmp_path, fresh=False)
    assert again[0].id == first[0].id and again[2].id == first[2].id
    message = r"3 of 10 rows are bad so far, more than data.tolerate allows \(0.2\); the first: .*rows.jsonl:1: image"
    for view in (again, first):
        with pytest.raises(DataError, match=message):
            view[5]
    whole = [line for line in (tmp_path / FILE).read_text().splitlines() if line.endswith("}")]
    assert [json.loads(line)["line"] for line in whole] == [1, 3, 6]
    anew = tolerated(samples, 0.2, tmp_path)
    anew[2]
    assert [line["line"] for line in written(tmp_path)] == [3]


def test_of_several_processes_one_writes_what_all_find(rows, tmp_path):
    samples = rows(GONE, GOOD, DAMAGED, GOOD)
    other = Quarantine(0.5)
    other.rows = 4
    other.open(tmp_path, fresh=True, writes_all=False)
    view = Tolerated(samples, other, check_images)
    view[0]
    assert not (tmp_path / FILE).exists() and len(other.reasons) == 1
    view[2]
    assert [line["line"] for line in written(tmp_path)] == [3], "whose images only this one opens"


def leave_out_many(folder, start):
    quarantine = Quarantine(0.5)
    quarantine.rows = 1000
    quarantine.open(folder, fresh=False)
    append = quarantine._append
    quarantine._append = lambda *row: (time.sleep(0.01), append(*row))  # time enough for another to look
    start.wait()
    for number in range(8):
        quarantine.leave_out(f"rows.jsonl:{number}", "no JSON", by_all=False)


def test_processes_that_find_a_row_at_once_write_it_once(tmp_path):
    context = multiprocessing.get_context("fork")
    start = context.Barrier(3)
    others = [context.Process(target=leave_out_many, args=(tmp_path, start)) for _ in range(3)]
    for process in others:
        process.start()
    for process in others:
        process.join(60)
        assert process.exitcode == 0
    lines = [line["line"] for line in written(tmp_path)]
    assert sorted(lines) == list(range(8))


def test_rows_that_were_found_before_the_folder_was_there_are_written(rows, tmp_path):
    view = tolerated(rows(GONE, GOOD), 0.5)
    assert view[0].answer == "red"
    view.quarantine.open(tmp_path, fresh=True)
    assert [line["line"] for line in written(tmp_path)] == [1]


def test_rows_of_which_none_is_good_are_an_error(rows):
    with pytest.raises(DataError, match="2 of 2 rows are bad so far"):
        tolerated(rows(GONE, "{"), 0.5)[0]
