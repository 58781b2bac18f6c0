"""A corpus is perceived once per image, whatever happens meanwhile, with the same bytes by any number of workers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytest.importorskip("pyarrow", reason="shards need pyarrow: pip install 'moai-vlm[corpus]'")

from dots_probe import draw  # noqa: E402
from filelock import FileLock  # noqa: E402
from pyarrow import parquet  # noqa: E402

from moai import plugins  # noqa: E402
from moai.errors import CorpusError, ExpertError  # noqa: E402
from moai.perception.corpus.inputs import read_images  # noqa: E402
from moai.perception.corpus.manifest import MEASURED, read_measurements  # noqa: E402
from moai.perception.corpus.run import Workers, perceive_corpus  # noqa: E402


def perceive(out, given="pictures", experts=("dots",), **settings):
    return perceive_corpus(read_images(Path(given)), out, experts, **{"shard_size": 20, **settings})


def rows_of(folder):
    return [row for path in sorted(Path(folder).glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def contents(folder):
    return {path.name: path.read_bytes() for path in Path(folder).iterdir() if path.name != MEASURED}


def command(*arguments):
    return [sys.executable, "-m", "moai.cli.main", "perceive-dataset", *arguments]


def test_each_image_is_a_row_in_order_and_two_workers_write_the_same_bytes(probe, folder):
    made = perceive("one")
    perceive("two", workers=Workers(count=2))
    assert contents("one") == contents("two") and len(list(Path("one").glob("shard-*.parquet"))) == 4
    rows = rows_of("one")
    assert [row["id"] for row in rows] == [path for _, path, _ in read_images(Path("pictures"))]
    assert len(rows) == made.images == 70 and made.unreadable == 2 and made.failures == {}
    good = next(row for row in rows if row["id"] == "pictures/1/07.png")
    assert (good["width"], good["height"], good["error"], good["failures"]) == (6, 4, None, [])
    assert good["bytes"] == Path("pictures/1/07.png").stat().st_size and len(good["sha256"]) == 64
    found = json.loads(good["perception"])
    assert found["detections"][0]["label"] == "dot 7" and found["texts"][0]["text"].startswith("\ud800")
    assert good["experts"] == "dots 1" and good["experts_key"] == made.experts_key
    errors = {row["id"]: row["error"] for row in rows if row["error"]}
    assert set(errors) == {"pictures/0/10.png", "pictures/1/11.png"} and str(folder) not in str(errors)
    assert all(row["perception"] is None for row in rows if row["error"])


def test_what_was_measured_is_there(probe, folder):
    perceive("out", workers=Workers(count=2))
    [run] = read_measurements(Path("out"))
    assert (run.images, run.workers, run.engine) == (70, 2, "local")
    assert run.bytes == sum(path.stat().st_size for path in Path("out").glob("*.parquet"))
    assert 0 < run.work_seconds and 0 < run.load_seconds < 2 * run.seconds


def test_only_shards_that_are_missing_are_perceived(probe, folder):
    perceive("out")
    before, times = contents("out"), {p.name: p.stat().st_mtime_ns for p in Path("out").glob("*.parquet")}
    Path("out/shard-00002.parquet").unlink()
    Path("out/.shard-00002.parquet.1-1.part").write_bytes(b"half of it")
    counted = []
    perceive("out", report=lambda images, done: Reported(counted, images, done))
    assert contents("out") == before and counted[0] == (70, 50) and sum(counted[1:]) == 20
    changed = {p.name for p in Path("out").glob("*.parquet") if p.stat().st_mtime_ns != times[p.name]}
    assert changed == {"shard-00002.parquet"}


class Reported:
    """A progress that notes what it is told."""

    def __init__(self, into, *start):
        self.into = into
        into.append(start)

    def __enter__(self):
        return self.into.append

    def __exit__(self, *_):
        pass


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_stopped_anywhere_it_goes_on_without_a_double_or_a_gap(probe, folder, number):
    settings = [
        "pictures",
        "--out",
        "out",
        "--shard-size",
        "10",
        "--workers",
        "2",
        "--option",
        "dots.seconds=0.1",
    ]  # seconds in all, to be stopped in
    running = subprocess.Popen(command(*settings), stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 60
    while len(list(Path("out").glob("*.parquet"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.02)
    running.send_signal(number)
    _, said = running.communicate(timeout=60)  # the pipe ends with the last worker: none outlives its parent
    assert running.returncode == {signal.SIGKILL: -9, signal.SIGTERM: 143, signal.SIGINT: 130}[number]
    assert number == signal.SIGKILL or "continue with: moai perceive-dataset pictures --out out" in said
    done = len(list(Path("out").glob("shard-*.parquet")))
    assert 2 <= done < 7 and not Path("out/manifest.json").exists()
    subprocess.run(command(*settings), check=True, capture_output=True)
    options = {"dots": {"seconds": 0.1}}
    perceive("whole", shard_size=10, options=options)
    assert contents("out") == contents("whole")
    assert len({row["id"] for row in rows_of("out")}) == len(rows_of("out")) == 70


def test_an_expert_that_raises_or_hangs_costs_its_image_alone(probe, folder):
    for number, green in enumerate((0, 1, 2, 0, 0)):
        draw(Path("few") / f"{number}.png", number, green)
    made = perceive("out", "few", workers=Workers(time_limit=1.0))
    rows = rows_of("out")
    assert [bool(row["failures"]) for row in rows] == [False, True, True, False, False]
    assert "green" in rows[1]["failures"][0]["reason"] and "within 1 seconds" in rows[2]["failures"][0]["reason"]
    assert made.failures == {"dots": 2} and made.unreadable == 0
    assert json.loads(rows[2]["perception"])["failures"] == rows[2]["failures"]


def test_an_expert_that_cannot_be_loaded_ends_the_run_with_a_sentence(probe, folder, monkeypatch):
    monkeypatch.setenv("DOTS_BROKEN", "1")
    with pytest.raises(ExpertError, match="expert 'dots': did not load: RuntimeError: no engine"):
        perceive("out")
    monkeypatch.delenv("DOTS_BROKEN")
    assert perceive("out").images == 70


def test_a_worker_that_dies_ends_the_run_with_a_sentence(probe, folder):
    draw(Path("few/0.png"), 0, 3)
    with pytest.raises(CorpusError, match="ended from outside.*run the same command to go on"):
        perceive("out", "few")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"options": {"dots": {"label": "spot"}}}, "was made with options .*dot.* and this run has .*spot"),
        ({"shard_size": 10}, "begun with other images or another --shard-size"),
        ({"limit": 30}, "begun with other images"),
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_other_settings_than_before_are_refused(probe, folder, change, reason, finished):
    perceive("out")
    if not finished:
        Path("out/manifest.json").unlink()
        Path("out/shard-00003.parquet").unlink()
        reason = "was made of other images or with other settings" if "options" in change else reason
    before = contents("out")
    with pytest.raises(CorpusError, match=reason):
        perceive("out", **change)
    assert contents("out") == before


def test_another_version_is_refused(probe, folder, monkeypatch):
    perceive("out")
    monkeypatch.setenv("DOTS_VERSION", "2")
    sys.modules.pop("moai_dots_probe")
    plugins.registry.cache_clear()
    with pytest.raises(CorpusError, match="version '1' of expert 'dots', and this run has '2'; name another --out"):
        perceive("out")


def test_new_images_are_refused_and_a_sample_is_the_beginning(probe, folder):
    made = perceive("out", limit=30)
    assert made.images == 30 and [shard["rows"] for shard in made.shards] == [20, 10]
    draw(folder / "pictures" / "0" / "00a.png", 1)
    with pytest.raises(CorpusError, match="other images"):
        perceive("out", limit=30)


def test_a_damaged_shard_and_list_are_named(probe, folder):
    perceive("out")
    shard = Path("out/shard-00001.parquet")
    shard.write_bytes(shard.read_bytes()[:-50])
    with pytest.raises(CorpusError, match="shard-00001.parquet is damaged .*delete it"):
        perceive("out")
    Path("out/images.sqlite").write_bytes(b"x" * 5000)
    with pytest.raises(CorpusError, match="images.sqlite is damaged .*delete it"):
        perceive("out")


def test_one_run_at_a_time_writes_to_a_folder(probe, folder):
    Path("out").mkdir()
    with FileLock("out/.lock"), pytest.raises(CorpusError, match="another run is writing"):
        perceive("out")
    Path("file").write_text("")
    with pytest.raises(CorpusError, match="cannot be used"):
        perceive("file")


def test_each_list_of_a_folder_is_a_shard(probe, folder):
    Path("lists").mkdir()
    for name, numbers in {"b": (4, 5, 4), "a": (1, 3)}.items():
        lines = [json.dumps({"image": f"{number}.png"}) for number in numbers]
        Path(f"lists/{name}.jsonl").write_text("\n".join(lines))
    made = perceive("out", "lists", shard_size=None)
    assert [(shard["source"], shard["rows"]) for shard in made.shards] == [("a.jsonl", 2), ("b.jsonl", 2)]
    assert made.unreadable == 4 and "does not exist" in rows_of("out")[0]["error"]


def test_results_do_not_depend_on_the_environments_threads(probe, folder, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    perceive("out", "pictures", limit=3)
    assert os.environ["OMP_NUM_THREADS"] == "7"
