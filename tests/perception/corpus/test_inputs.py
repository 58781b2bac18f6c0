"""Which images a corpus has: folders and lists, in a fixed order; names of files never lead out of their folder."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from moai.errors import CorpusError
from moai.perception.corpus.image_list import write_list
from moai.perception.corpus.inputs import read_images


def ids(given, **column):
    return [id for _, id, _ in read_images(Path(given), **column)]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("data").mkdir()


def write(name, text):
    Path(name).parent.mkdir(parents=True, exist_ok=True)
    Path(name).write_text(text)
    return name


def test_a_folder_is_walked_by_name_and_hidden_files_are_not_pictures():
    for name in (
        "data/b.PNG",
        "data/a/z.jpg",
        "data/a/.hidden.png",
        "data/.git/x.png",
        "data/notes.txt",
        "data/c.webp",
    ):
        write(name, "x")
    assert ids("data") == ["data/b.PNG", "data/c.webp", "data/a/z.jpg"]


def test_lists_of_each_kind_give_the_same_images():
    rows = [{"image": "a.png", "question": "?"}, {"image": "b/ü, c.png"}, {"image": "a.png"}]
    write("data/l.jsonl", "\n".join(map(json.dumps, rows)) + "\n\n")
    write("data/l.csv", '\ufeffquestion,image\n?,a.png\n,"b/ü, c.png"\n,\n,a.png\n')
    expected = ["data/a.png", "data/b/ü, c.png", "data/a.png"]
    assert ids("data/l.jsonl") == ids("data/l.csv") == expected
    pyarrow = pytest.importorskip("pyarrow")
    import pyarrow.parquet as parquet

    parquet.write_table(pyarrow.table({"image": ["a.png", "b/ü, c.png", None, "a.png"]}), "data/l.parquet")
    assert ids("data/l.parquet") == expected


def test_rows_may_have_several_images_or_none():
    rows = [{"images": ["a.png", "b.png"]}, {"question": "?"}, {"image": None}, {"image": ""}, {"picture": "c.png"}]
    write("data/l.jsonl", "\n".join(map(json.dumps, rows)))
    assert ids("data/l.jsonl") == ["data/a.png", "data/b.png"]
    assert ids("data/l.jsonl", column="picture") == ["data/c.png"]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ('{"image": "../secret.png"}', "line 2: image '../secret.png' leads out of data"),
        ('{"image": "/etc/passwd"}', "line 2: image '/etc/passwd' leads out of data"),
        ('{"image": 5}', "line 2: an image is the name of a file, not 5"),
        (r'{"image": "a\u0000.png"}', "line 2: an image is the name of a file"),
        ('{"image": {"bytes": "x"}}', "line 2: an image is the name of a file"),
        ("[1]", "line 2: a row is an object, not list"),
        ('{"image": ', "line 2: no JSON"),
        ("[" * 100_000, "line 2: no JSON"),
    ],
)
def test_a_bad_row_is_named(row, reason):
    write("data/l.jsonl", f'{{"image": "a.png"}}\n{row}\n')
    with pytest.raises(CorpusError, match=reason):
        ids("data/l.jsonl")


def test_lists_that_cannot_be_read_are_named():
    Path("data/l.jsonl").write_bytes(b'{"image": "\xff.png"}\n')
    with pytest.raises(CorpusError, match="l.jsonl cannot be read"):
        ids("data/l.jsonl")
    write("data/l.csv", "picture\na.png\n")
    with pytest.raises(CorpusError, match="no column 'image'.*--image-column"):
        ids("data/l.csv")
    pytest.importorskip("pyarrow")
    write("data/l.parquet", "no parquet")
    with pytest.raises(CorpusError, match="l.parquet is no Parquet file"):
        ids("data/l.parquet")


def test_a_folder_with_a_list_and_pictures_could_mean_either():
    write("data/l.jsonl", "{}")
    write("data/images/a.png", "x")
    with pytest.raises(CorpusError, match=r"holds a list \(l.jsonl\) and pictures \(a.png\); name the list"):
        ids("data")
    assert ids("data/images") == ["data/images/a.png"]


@pytest.mark.skipif(sys.platform == "darwin", reason="its file systems have valid names only")
def test_a_file_name_that_is_no_text_is_listed_and_found():
    name = os.fsdecode(b"data/\xff.png")
    write(name, "x")
    listed = write_list(Path("."), read_images(Path("data")), 10)
    [image] = listed.images(0)
    assert image.path == name and image.id == "data/\\udcff.png"
    assert listed.find(name) == listed.find(image.id) == (0, 0)


def test_an_image_in_many_rows_is_listed_once_and_an_id_means_one_file():
    write_list(Path("data"), [("s", str(number % 7), f"{number % 7}.png") for number in range(100)], 3)
    listed = write_list(Path("data"), [("s", str(number), f"{number}.png") for number in range(7)], 3)
    assert [shard.size for shard in listed.shards] == [3, 3, 1] and list(listed.ids()) == list("0123456")
    assert [listed.find(id) for id in ("0", "4", "9")] == [(0, 0), (1, 1), None]
    with pytest.raises(CorpusError, match="the image id 'x' names two files, a.png and b.png"):
        write_list(Path("."), [("s", "x", "a.png"), ("s", "x", "b.png")], 3)
    assert not Path("images.sqlite").exists()


def test_a_limit_counts_images_and_not_rows():
    rows = [("s", str(number // 5), f"{number // 5}.png") for number in range(100)]
    listed = write_list(Path("data"), rows, 3, limit=4)
    assert list(listed.ids()) == list("0123") and [shard.size for shard in listed.shards] == [3, 1]


def test_nothing_to_perceive_is_an_error():
    with pytest.raises(CorpusError, match="there are no images in it"):
        write_list(Path("data"), read_images(Path("data")), 3)
