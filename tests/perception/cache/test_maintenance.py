"""Counting, clearing and verifying a cache, beside whatever else happens to it."""

from __future__ import annotations

import sqlite3
import time

import pytest

from moai.errors import AssetError
from moai.perception.cache.maintenance import UNKNOWN, clear, damaged_files, shares, verify
from moai.perception.cache.store import Store
from moai.types import Detection, Perception

SEEN = Perception(detections=(Detection("dog", 0.5, (0.0, 0.0, 0.5, 0.5)),))


@pytest.fixture
def store(tmp_path):
    """Three entries of shapes, two of ocr, one that nobody owns; the first of ocr is ten days old."""
    made = Store(tmp_path / "cache")
    made.put_many([(f"s{i}", SEEN) for i in range(3)], expert="shapes")
    made.put_many([("o0", SEEN), ("o1", SEEN)], expert="ocr")
    made.put("nobody", SEEN)
    made.run(lambda db: db.execute("UPDATE origins SET created = created - 864000 WHERE key = 'o0'"))
    return made


def damage(store, key: str) -> None:
    store.run(lambda db: db.execute("UPDATE entries SET data = substr(data, 1, 9) WHERE key = ?", (key,)))


def test_shares_are_per_expert(store):
    found = {share.expert: share for share in shares(store)}
    assert {name: share.entries for name, share in found.items()} == {"shapes": 3, "ocr": 2, UNKNOWN: 1}
    assert found["shapes"].bytes == 3 * found[UNKNOWN].bytes > 0
    assert abs(found["ocr"].newest - time.time()) < 60


def test_a_cache_made_before_there_were_origins_goes_on(tmp_path):
    path = tmp_path / "perceptions.sqlite"
    new = Store(tmp_path)
    new.put("k", SEEN)
    new.close()
    with sqlite3.connect(path) as db:
        db.execute("DROP TABLE origins")
    db.close()
    old = Store(tmp_path)
    assert old.get("k") == SEEN
    assert [(share.expert, share.entries, share.newest) for share in shares(old)] == [(UNKNOWN, 1, None)]
    with sqlite3.connect(path) as db:  # a program that knows no origins writes three columns
        db.execute("INSERT OR REPLACE INTO entries SELECT 'other', checksum, data FROM entries")
    db.close()
    assert shares(old)[0].entries == 2


def test_clear_takes_what_is_asked_for(store):
    assert clear(store, expert="ocr", older_than=5 * 86400) == 1
    assert store.get("o0") is None and store.get("o1") == SEEN
    assert clear(store, expert=UNKNOWN) == 1 and store.get("nobody") is None
    assert clear(store, older_than=86400) == 0
    assert clear(store) == 4 and len(store) == 0
    assert store.run(lambda db: db.execute("SELECT count(*) FROM origins").fetchone()) == (0,)


def test_what_nobody_dated_is_old(store):
    assert clear(store, older_than=86400) == 1  # o0; the entry of nobody has a date
    store.run(lambda db: db.execute("DELETE FROM origins WHERE key = 'nobody'"))
    assert clear(store, older_than=86400) == 1 and store.get("nobody") is None


def test_clearing_gives_the_room_back(store):
    big = Perception(notes={"big": tuple(f"{i * 7919 % 10007}" for i in range(5000))})
    store.put_many((f"b{i}", big) for i in range(100))
    before = store.path.stat().st_size + store.path.with_name(store.path.name + "-wal").stat().st_size
    clear(store)
    assert store.path.stat().st_size < before / 10


def test_a_reader_that_holds_the_file_costs_the_room_only(store, monkeypatch, caplog):
    def busy(self):
        raise AssetError("database is locked")

    monkeypatch.setattr(Store, "vacuum", busy)
    assert clear(store) == 6
    assert "keeps its size: database is locked" in caplog.text


def test_verify_reads_everything_and_drops_what_is_damaged(store, monkeypatch):
    monkeypatch.setattr("moai.perception.cache.maintenance._CHUNK", 2)
    assert list(verify(store)) == [(key, None) for key in ("nobody", "o0", "o1", "s0", "s1", "s2")]
    damage(store, "o1")
    damage(store, "s2")
    assert {key: reason is not None for key, reason in verify(store)}["o1"] is True
    assert len(store) == 4 and all(reason is None for _, reason in verify(store))


def test_files_set_aside_are_found(tmp_path, store):
    assert damaged_files(store.folder) == []
    store.close()
    for part in store.folder.glob("*-wal"):
        part.unlink()
    store.path.write_bytes(b"garbage" * 1000)
    assert len(Store(store.folder)) == 0
    assert [path.name.partition(".damaged-")[0] for path in damaged_files(store.folder)][0] == "perceptions.sqlite"
