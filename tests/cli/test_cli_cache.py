"""`moai cache`: info, clear, verify."""

from __future__ import annotations

import json
import sqlite3

import pytest

from moai.perception.cache.store import default_store

pytestmark = pytest.mark.usefixtures("known")


@pytest.fixture
def filled(run_cli, picture_file):
    """The cache after `moai perceive` with two experts."""
    assert run_cli("perceive", picture_file, "--experts", "spots,reader").exit_code == 0
    return default_store()


def test_nothing_is_cached_yet(run_cli, tmp_path):
    assert "no perceptions are cached" in run_cli("cache", "info").stdout
    assert "holds no perceptions" in run_cli("cache", "clear", "--yes").stdout
    assert "checked 0 perceptions: all sound" in run_cli("cache", "verify").stdout
    assert not (tmp_path / "cache").exists(), "asking makes no cache"


def test_info_counts_per_expert(run_cli, filled, tmp_path):
    (tmp_path / "cache" / "wheels").mkdir()
    (tmp_path / "cache" / "wheels" / "file").write_bytes(b"x" * 2500)
    result = run_cli("cache", "info")
    assert "2 perceptions" in result.stdout and "beside it: wheels, 2.5 KB" in result.stdout
    facts = json.loads(run_cli("cache", "info", "--json").stdout)
    assert {item["expert"]: item["entries"] for item in facts["experts"]} == {"spots": 1, "reader": 1}
    assert facts["entries"] == 2 and facts["bytes"] > 0 and facts["assets"] == {"wheels": 2500}


def test_clear_asks_first(run_cli, filled):
    result = run_cli("cache", "clear")
    assert result.exit_code == 1 and "of all experts" in result.stderr and len(filled) == 2
    assert run_cli("cache", "clear", "--yes").stdout == "dropped 2 perceptions; 0 are left\n"


def test_clear_one_expert_or_what_is_old(run_cli, filled):
    assert run_cli("cache", "clear", "--older-than", "1d", "--yes").stdout == "dropped 0 perceptions; 2 are left\n"
    assert run_cli("cache", "clear", "--expert", "spots", "--yes").stdout == "dropped 1 perceptions; 1 are left\n"
    result = run_cli("cache", "clear", "--expert", "raeder", "--yes")
    assert result.exit_code == 1 and "did you mean 'reader'?" in result.stderr
    result = run_cli("cache", "clear", "--older-than", "yesterday", "--yes")
    assert result.exit_code == 1 and "such as 30d" in result.stderr


def test_verify_exits_with_1_once(run_cli, filled):
    assert run_cli("cache", "verify").stdout == "checked 2 perceptions: all sound\n"
    filled.run(lambda db: db.execute("UPDATE entries SET data = x'00' WHERE rowid = 1"))
    result = run_cli("cache", "verify")
    assert result.exit_code == 1 and result.stdout == "checked 2 perceptions: 1 damaged\n"
    assert "was damaged and is dropped: ValueError: checksum mismatch" in result.stderr
    assert run_cli("cache", "verify").exit_code == 0


def test_a_file_that_is_damaged_as_a_whole_is_noticed_and_cleared(run_cli, filled):
    filled.close()
    for part in filled.folder.glob("*-*"):
        part.unlink()
    filled.path.write_bytes(b"garbage" * 1000)
    with pytest.raises(sqlite3.DatabaseError):
        sqlite3.connect(filled.path).execute("SELECT * FROM entries")
    result = run_cli("cache", "verify")
    assert result.exit_code == 1 and "damaged as a whole" in result.stdout
    assert "1 files of damaged caches" in run_cli("cache", "info").stderr
    run_cli("cache", "clear", "--yes")
    assert list(filled.folder.glob("*.damaged-*")) == []


def test_a_damaged_entry_is_perceived_again(run_cli, filled, known, picture_file):
    filled.run(lambda db: db.execute("UPDATE entries SET data = x'00'"))
    result = run_cli("perceive", picture_file, "--experts", "spots")
    assert result.exit_code == 0 and "is damaged" in result.stderr and "spot" in result.stdout
    assert known.experts["spots"].calls == 2
