"""Rows of large files: found without reading the file twice, whatever its layout, and cached."""

from __future__ import annotations

import hashlib
import json
import tracemalloc

import numpy as np
import pytest

from moai.assets.cache import cache_dir
from moai.data import row_index
from moai.data.records import JsonRecords, json_records
from moai.errors import DataError

ROWS = [
    {"id": 1, "text": "a"},
    {"id": "two", "text": 'é 漢 ] } " [ {'},
    {"id": 3, "text": "line\nbreak", "in": {"a": [1]}},
]


def lines(rows=ROWS, end="\n") -> bytes:
    return end.join(json.dumps(row, ensure_ascii=False) for row in rows).encode()


LAYOUTS = {
    "lines": lines(),
    "lines with a last break": lines() + b"\n",
    "lines with blank ones and a mark of UTF-8": b"\xef\xbb\xbf\n\n" + lines(end="\n\n") + b"\n\n",
    "lines of another system": lines(end="\r\n\r\n"),
    "array": json.dumps(ROWS, ensure_ascii=False).encode(),
    "array, indented": b"\xef\xbb\xbf  " + json.dumps(ROWS, indent=2, ensure_ascii=False).encode(),
    "array, escaped": json.dumps(ROWS).encode(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chunk", [7, 1 << 20])
def test_every_layout_has_the_same_rows(tmp_path, monkeypatch, layout, chunk):
    monkeypatch.setattr(row_index, "CHUNK", max(chunk, 12))
    path = tmp_path / "rows.json"
    path.write_bytes(LAYOUTS[layout])
    records = JsonRecords(path)
    assert [records[n] for n in range(3)] == list(records.stream()) == list(records) == ROWS
    text = LAYOUTS[layout].decode("utf-8-sig").splitlines() or [""]
    for number, word in enumerate(('"id": 1', '"two"', '"id": 3')):
        place = records.place(number)
        assert place.file == str(path) and word in "".join(text[place.line - 1 : place.line + 2])


def test_an_index_is_made_once_and_anew_when_the_file_changes(tmp_path, monkeypatch):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines())
    first = JsonRecords(path)
    assert len(list(cache_dir().glob("rows/*.npy"))) == 2, "the rows' places, and the digest"
    monkeypatch.setattr(row_index, "_scan", lambda path, update: pytest.fail("scanned again"))
    assert len(JsonRecords(path)) == 3
    monkeypatch.undo()
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "cache"))
    path.write_bytes(lines(ROWS[:2]))
    assert len(JsonRecords(path)) == 2
    with pytest.raises(DataError, match=r"rows.jsonl:1: the file has changed since it was opened; start again"):
        first[0]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_digest_is_that_of_all_bytes_wherever_the_file_lies(tmp_path, monkeypatch, layout):
    monkeypatch.setattr(row_index, "CHUNK", 40)
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(LAYOUTS[layout])
    digests = {JsonRecords(tmp_path / name).digest for name in ("a", "b", "a")}  # the last one from the cache
    assert digests == {hashlib.sha256(LAYOUTS[layout]).hexdigest()}
    changed = bytearray(LAYOUTS[layout])
    changed[changed.index(b"two")] = ord("T")  # one byte in the middle, and a time of change of its own
    (tmp_path / "a").write_bytes(changed)
    assert JsonRecords(tmp_path / "a").digest not in digests


def test_a_cache_that_cannot_be_written_is_said_and_not_needed(tmp_path, monkeypatch, caplog):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "file"))
    (tmp_path / "rows.jsonl").write_bytes(lines())
    assert len(JsonRecords(tmp_path / "rows.jsonl")) == 3
    assert "is not cached" in caplog.text


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "holds no rows; write one JSON object per line"),
        (b"[]", "holds no rows"),
        (b'[{"a": 1}, {"a": 2}', r":1: the array is not closed; fix this row, or copy the file again"),
        (b'[\n{"a": 1},\n{"a" 2}]', r":3: Expecting ':' delimiter; fix this row"),
        (b"[\n1, 2]", r":2: the array holds int; its rows are objects"),
    ],
)
def test_a_file_without_rows_is_a_sentence(tmp_path, content, said):
    path = tmp_path / "rows.json"
    path.write_bytes(content)
    with pytest.raises(DataError, match=said):
        JsonRecords(path)


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": ', "no JSON .*; write one object per line"),
        (b"[1]", "a row is a JSON object, {..}, not list"),
        (b'{"a": "\xff"}', "not UTF-8 .*; save the file as UTF-8"),
        (b'{"a": ' + b"[" * 100_000 + b"}", "no JSON"),
        (b'{"a": ' + b"9" * 5000 + b"}", "no JSON"),
    ],
)
def test_a_bad_line_is_named_and_costs_itself_only(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(lines() + b"\n" + line + b"\n" + lines())
    records = JsonRecords(path)
    assert len(records) == 7 and records[4] == ROWS[0]
    with pytest.raises(DataError, match=rf"rows.jsonl:4: {said}"):
        records[3]
    assert [isinstance(row, DataError) for row in records.stream()] == [n == 3 for n in range(7)]


def test_several_files_are_one(tmp_path):
    for name, rows in (("a", ROWS[:2]), ("b", ROWS[2:])):
        (tmp_path / f"{name}.jsonl").write_bytes(lines(rows))
    records = json_records([tmp_path / "a.jsonl", tmp_path / "b.jsonl"])
    assert list(records) == list(records.stream()) == ROWS
    assert records.place(2) == (str(tmp_path / "b.jsonl"), 1)
    with pytest.raises(IndexError):
        records[3]


def test_memory_does_not_grow_with_the_file(tmp_path):
    path = tmp_path / "rows.jsonl"
    row = json.dumps({"id": 0, "text": "x" * 200}).encode() + b"\n"
    path.write_bytes(row * 100_000)  # 22 MB
    JsonRecords(path)
    tracemalloc.start()
    records = JsonRecords(path)
    assert records[99_999]["id"] == 0 and sum(1 for _ in records.stream()) == 100_000
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 10e6 + len(records) * 3 * np.dtype(np.int64).itemsize
