"""Actors of Ray Data write the same bytes as processes of this machine."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="shards need pyarrow: pip install 'moai-vlm[corpus]'")

from moai.errors import CorpusError  # noqa: E402
from moai.perception.corpus.inputs import read_images  # noqa: E402
from moai.perception.corpus.manifest import MEASURED  # noqa: E402
from moai.perception.corpus.run import Workers, perceive_corpus  # noqa: E402

RAY = Workers("ray", 2)


@pytest.fixture
def ray():
    """Skip where Ray is not installed."""
    return pytest.importorskip("ray", reason="Ray is not installed: pip install 'moai-vlm[ray]'")


def perceive(out, **settings):
    return perceive_corpus(read_images(Path("pictures")), out, ["dots"], shard_size=20, **settings)


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != MEASURED}


@pytest.mark.slow
def test_two_actors_write_the_same_bytes_and_go_on(ray, probe, folder):
    perceive("one")
    made = perceive("two", workers=RAY)
    assert contents("one") == contents("two") and (made.images, made.unreadable) == (70, 2)
    Path("two/shard-00001.parquet").unlink()
    perceive("two", workers=RAY)
    assert contents("one") == contents("two") and not ray.is_initialized()


@pytest.mark.slow
def test_an_actors_error_is_its_sentence(ray, probe, folder, monkeypatch):
    monkeypatch.setenv("DOTS_BROKEN", "1")
    with pytest.raises(CorpusError, match="^expert 'dots': did not load: RuntimeError: no engine$"):
        perceive("out", workers=RAY)


@pytest.mark.slow
def test_a_sigterm_ends_it_and_it_goes_on(ray, probe, folder):
    settings = ["pictures", "--out", "out", "--shard-size", "5", "--option", "dots.seconds=0.2", "--engine", "ray"]
    command = [sys.executable, "-m", "moai.cli.main", "perceive-dataset", *settings]
    running = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not list(Path("out").glob("*.parquet")) and time.monotonic() < deadline:
        time.sleep(0.05)
    running.send_signal(signal.SIGTERM)
    assert running.wait(60) == 143
    done = len(list(Path("out").glob("shard-*.parquet")))
    assert 0 < done < 14 and not Path("out/manifest.json").exists()
    subprocess.run([*command[:-2], "--workers", "2"], check=True, capture_output=True)
    assert len(list(Path("out").glob("shard-*.parquet"))) == 14 and Path("out/manifest.json").exists()


def test_without_ray_a_sentence_names_the_install(probe, folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(CorpusError, match=r"--engine ray needs Ray .*pip install 'moai-vlm\[ray\]'"):
        perceive("out", workers=RAY)
