"""Perceptions are read from shards by image id, one group of rows at a time, and only those that were asked for."""

from __future__ import annotations

import contextlib
import pickle
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="shards need pyarrow: pip install 'moai-vlm[corpus]'")

from dots_probe import draw_all, installed  # noqa: E402

from moai import plugins  # noqa: E402
from moai.errors import CorpusError, ExpertError  # noqa: E402
from moai.images import read_image  # noqa: E402
from moai.perception.corpus import perceptions as module  # noqa: E402
from moai.perception.corpus.inputs import read_images  # noqa: E402
from moai.perception.corpus.perceptions import CorpusPerceptions  # noqa: E402
from moai.perception.corpus.run import perceive_corpus  # noqa: E402
from moai.perception.running.perceiver import Perceiver  # noqa: E402

ONE = "pictures/1/07.png"


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A finished corpus of ``dots``, made once."""
    place = tmp_path_factory.mktemp("corpus")
    with installed(place / "site"), contextlib.chdir(draw_all(place / "here")):
        perceive_corpus(read_images(Path("pictures")), "out", ["dots"], shard_size=40)
    return place / "here" / "out"


@pytest.fixture
def corpus(finished, probe, folder):
    """A copy of it in ``out``."""
    shutil.copytree(finished, "out")
    return CorpusPerceptions("out", ["dots"])


def test_they_equal_what_the_perceiver_returns(corpus):
    live = Perceiver(["dots"])
    ids = [id for id in corpus if id not in ("pictures/0/10.png", "pictures/1/11.png")]
    assert len(corpus) == 70 and len(ids) == 68
    assert [corpus[id] for id in ids] == live.perceive([read_image(id) for id in ids])


def test_an_image_without_a_row_is_an_error_with_its_id(corpus):
    with pytest.raises(CorpusError, match="out has no row of image 'pictures/9.png'; perceive"):
        corpus["pictures/9.png"]
    with pytest.raises(CorpusError, match="no row of image"):
        corpus.get("pictures/9.png")
    assert "pictures/9.png" not in corpus and ONE in corpus and None not in corpus
    with pytest.raises(CorpusError, match="no row of image 'x'"):
        CorpusPerceptions("out", ["dots"], ids=[ONE, "x"])


def test_an_image_that_could_not_be_read_is_an_error_with_the_reason(corpus):
    with pytest.raises(CorpusError, match="image 'pictures/1/11.png' has no perception: .*is empty"):
        corpus["pictures/1/11.png"]


def test_only_what_is_asked_for_is_listed(corpus):
    some = CorpusPerceptions("out", ["dots"], ids=[ONE, "pictures/0/00.png", ONE])
    assert list(some) == [ONE, "pictures/0/00.png"] and len(some) == 2
    assert [one.detections[0].label for one in some.values()] == ["dot 7", "dot 0"]


def test_other_experts_options_and_versions_are_refused(corpus, monkeypatch):
    with pytest.raises(CorpusError, match="made with options .* and this run has .*; perceive the corpus again"):
        CorpusPerceptions("out", ["dots"], {"dots": {"label": "spot"}})
    with pytest.raises(CorpusError, match="made by dots, not by no experts"):
        CorpusPerceptions("out", [])
    with pytest.raises(ExpertError, match="unknown|no expert"):
        CorpusPerceptions("out", ["dotz"])
    monkeypatch.setenv("DOTS_VERSION", "2")
    sys.modules.pop("moai_dots_probe")
    plugins.registry.cache_clear()
    with pytest.raises(CorpusError, match="version '1' of expert 'dots', and this run has '2'"):
        CorpusPerceptions("out", ["dots"])


def test_an_unfinished_corpus_and_another_list_are_refused(corpus):
    with pytest.raises(CorpusError, match="elsewhere is no finished corpus"):
        CorpusPerceptions("elsewhere", ["dots"])
    perceive_corpus(read_images(Path("pictures")), "less", ["dots"], limit=3)
    Path("out/images.sqlite").write_bytes(Path("less/images.sqlite").read_bytes())
    with pytest.raises(CorpusError, match="is not the list of"):
        CorpusPerceptions("out", ["dots"])
    Path("less/images.sqlite").unlink()
    with pytest.raises(CorpusError, match="cannot be read"):
        CorpusPerceptions("less", ["dots"])


def test_a_missing_shard_is_named(corpus):
    Path("out/shard-00000.parquet").unlink()
    with pytest.raises(CorpusError, match="shard-00000.parquet is damaged or missing"):
        corpus[ONE if corpus._list.find(ONE)[0] == 0 else "pictures/0/00.png"]


def test_memory_holds_the_last_groups_alone(corpus, monkeypatch):
    monkeypatch.setattr(module, "_GROUPS", 1)
    read = []
    some = CorpusPerceptions("out", ["dots"])
    monkeypatch.setattr(some, "_open_file", lambda shard: read.append(shard))
    first, second, third = "pictures/0/00.png", "pictures/0/02.png", "pictures/1/69.png"
    for id in (first, second, first, third):
        some[id]
    info = some._group.cache_info()
    assert (info.currsize, info.misses, info.hits) == (1, 2, 2)


def test_threads_and_other_processes_read_it(corpus):
    copy = pickle.loads(pickle.dumps(CorpusPerceptions("out", ["dots"], ids=[ONE])))
    assert list(copy) == [ONE] and copy[ONE] == corpus[ONE] and repr(copy) != repr(corpus)
    ids = [id for id in corpus if id not in ("pictures/0/10.png", "pictures/1/11.png")]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda id: corpus[id].detections[0].label, ids * 5))
    assert found == [f"dot {int(Path(id).stem)}" for id in ids * 5]


def test_a_file_that_changed_is_refused_by_its_size_and_by_its_content(corpus):
    file = Path(ONE)
    whole = file.read_bytes()
    corpus.check_file(ONE, file, content=True)
    file.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    corpus.check_file(ONE, file)  # of the same size, which is all that is compared
    with pytest.raises(CorpusError, match=f"image '{ONE}' has another content .* delete out.shard-0000"):
        corpus.check_file(ONE, file, content=True)
    file.write_bytes(whole + b"x")
    with pytest.raises(
        CorpusError, match=f"image '{ONE}' was .* bytes when it was perceived and is .* now; delete out"
    ):
        corpus.check_file(ONE, str(file))
    file.unlink()
    with pytest.raises(CorpusError, match=f"image '{ONE}' cannot be read .No such file"):
        corpus.check_file(ONE, file)
    corpus.check_file(ONE, b"pixels in memory")
    corpus.check_file("pictures/0/10.png", "pictures/0/10.png", content=True)  # a row without a perception
    with pytest.raises(CorpusError, match="no row of image 'x'"):
        corpus.check_file("x", file)


def test_a_deleted_shard_is_perceived_again_with_the_new_file(corpus):
    file = Path(ONE)
    file.write_bytes(file.read_bytes() + b"x")
    shard, _ = corpus._place(ONE)
    Path(f"out/shard-{shard:05d}.parquet").unlink()
    perceive_corpus(read_images(Path("pictures")), "out", ["dots"], shard_size=40)
    CorpusPerceptions("out", ["dots"]).check_file(ONE, file, content=True)
