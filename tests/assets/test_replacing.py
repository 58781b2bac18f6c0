"""Files are there whole or not at all."""

import threading

import pytest

from moai.assets.replacing import replacing


def test_a_file_appears_when_it_is_whole(tmp_path):
    path = tmp_path / "made.txt"
    with replacing(path) as part:
        part.write_text("half")
        assert not path.exists() and part.parent == tmp_path and part.name.startswith(".")
        part.write_text("whole")
    assert path.read_text() == "whole" and [p.name for p in tmp_path.iterdir()] == ["made.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_interrupted_write_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "made.txt"
    path.write_text("old")
    with pytest.raises(error), replacing(path) as part:
        part.write_text("ne")
        raise error
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_a_body_that_writes_nothing_is_an_error_and_takes_nothing_away(tmp_path):
    path = tmp_path / "made.txt"
    path.write_text("old")
    with pytest.raises(FileNotFoundError), replacing(path):
        pass
    assert path.read_text() == "old"


def test_writers_at_once_do_not_meet(tmp_path):
    path, ready, failures = tmp_path / "made.txt", threading.Barrier(4), []

    def write(text):
        try:
            for _ in range(20):
                with replacing(path) as part:
                    part.write_text(text)
                    ready.wait(timeout=30)
                    assert part.read_text() == text
        except Exception as error:
            failures.append(error)
            ready.abort()

    threads = [threading.Thread(target=write, args=(str(n) * 1000,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures and len(set(path.read_text())) == 1 and list(tmp_path.iterdir()) == [path]
