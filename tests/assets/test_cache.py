"""What is published is whole or absent, is built once, and is built again when it was damaged."""

import json
import threading

import pytest

from moai.assets.cache import MARKER, cache_dir, is_whole, publish
from moai.errors import AssetError


def writer(text="content", calls=None):
    def build(folder):
        if calls is not None:
            calls.append(folder)
        (folder / "sub").mkdir()
        (folder / "sub" / "file.txt").write_text(text)

    return build


def test_the_cache_folder_comes_from_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MOAI_CACHE", str(tmp_path / "here"))
    assert cache_dir() == tmp_path / "here"
    monkeypatch.delenv("MOAI_CACHE")
    assert cache_dir().parts[-2:] == (".cache", "moai")


def test_publish_builds_once(tmp_path):
    calls = []
    folder = tmp_path / "cache" / "thing"
    for _ in range(3):
        assert publish(folder, "hash", writer(calls=calls)) == folder
    assert len(calls) == 1
    assert (folder / "sub" / "file.txt").read_text() == "content"


def test_a_build_that_fails_leaves_nothing_behind(tmp_path):
    def build(folder):
        (folder / "half.txt").write_text("half")
        raise RuntimeError("killed in the middle")

    with pytest.raises(RuntimeError, match="killed"):
        publish(tmp_path / "thing", "hash", build)
    assert [path for path in tmp_path.iterdir() if not path.name.endswith(".lock")] == []


def test_a_folder_without_marker_is_not_taken_for_a_whole_one(tmp_path):
    folder = tmp_path / "thing"
    (folder / "sub").mkdir(parents=True)
    (folder / "sub" / "file.txt").write_text("cont")
    publish(folder, "hash", writer())
    assert (folder / "sub" / "file.txt").read_text() == "content"


@pytest.mark.parametrize("damage", ["missing", "shortened", "marker garbled", "other origin", "marker of wrong type"])
def test_a_damaged_folder_is_built_anew(tmp_path, damage):
    folder = publish(tmp_path / "thing", "hash", writer())
    file, marker = folder / "sub" / "file.txt", folder / MARKER
    if damage == "missing":
        file.unlink()
    elif damage == "shortened":
        file.write_text("con")
    elif damage == "marker garbled":
        marker.write_text("{")
    elif damage == "marker of wrong type":
        marker.write_text("[]")
    else:
        marker.write_text(marker.read_text().replace("hash", "other"))
    assert not is_whole(folder, "hash")
    calls = []
    publish(folder, "hash", writer(calls=calls))
    assert len(calls) == 1
    assert file.read_text() == "content"
    assert is_whole(folder, "hash")


def test_the_marker_lists_every_file_with_its_size(tmp_path):
    folder = publish(tmp_path / "thing", "hash", writer())
    assert json.loads((folder / MARKER).read_text()) == {"origin": "hash", "files": {"sub/file.txt": 7}}


def test_two_at_once_build_once(tmp_path):
    calls, results = [], []
    entered, go_on = threading.Event(), threading.Event()

    def build(folder):
        entered.set()
        go_on.wait(60)
        writer(calls=calls)(folder)

    threads = [
        threading.Thread(target=lambda: results.append(publish(tmp_path / "thing", "hash", build))) for _ in range(2)
    ]
    threads[0].start()
    assert entered.wait(60)
    threads[1].start()
    go_on.set()
    for thread in threads:
        thread.join(60)
    assert results == [tmp_path / "thing"] * 2
    assert len(calls) == 1


def test_what_a_killed_process_left_aside_is_swept(tmp_path):
    (tmp_path / ".thing-abc" / "content").mkdir(parents=True)
    publish(tmp_path / "thing", "hash", writer())
    assert not (tmp_path / ".thing-abc").exists()


def test_a_cache_that_cannot_be_written_names_the_variable(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(AssetError, match="MOAI_CACHE"):
        publish(tmp_path / "file" / "wheels" / "thing", "hash", writer())
