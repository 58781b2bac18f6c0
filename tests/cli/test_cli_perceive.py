"""`moai perceive`: tables, JSON, overlays, and every way to fail."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from moai.cli.options import overlay_paths
from moai.perception.running.perceiver import Perceiver

pytestmark = pytest.mark.usefixtures("known")


def rows(result):
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_all_installed_experts_look(run_cli, picture_file):
    result = run_cli("perceive", picture_file)
    assert result.exit_code == 0
    assert "spot" in result.stdout and "[0.25, 0.25, 0.75, 0.75]" in result.stdout
    assert "perceived by spots 3, reader 1" in result.stdout
    assert "in words: The image includes bounding box coordinates and their objects" in result.stdout
    assert "expert 'broken' gave nothing: RuntimeError: no battery" in result.stderr
    assert "absent" not in result.stdout + result.stderr


def test_a_long_path_does_not_cut_the_line_that_names_the_experts(run_cli, picture_file, tmp_path):
    longer = tmp_path / ("long" * 50)
    longer.mkdir()
    long_file = picture_file.rename(longer / picture_file.name)
    first = run_cli("perceive", long_file, "--experts", "spots").stdout.splitlines()[0]
    assert first == f"{long_file} (64 x 64), perceived by spots 3"


def test_text_from_an_image_is_neither_markup_nor_an_escape_sequence(run_cli, picture_file):
    shown = run_cli("perceive", picture_file, "--experts", "reader").stdout
    assert "[bold]EXIT[/bold]" in shown and "\x1b" not in shown


def test_json_is_one_object_per_image(run_cli, picture_file):
    result = run_cli("perceive", picture_file, picture_file, "--experts", "spots", "--json")
    first, second = rows(result)
    assert first == second
    assert (first["image"], first["width"], first["height"]) == (str(picture_file), 64, 64)
    assert first["segments"][0]["label"] == "spot" and first["failures"] == []
    assert first["verbalized"].startswith("The image includes")


def test_an_unreadable_image_costs_a_sentence_and_the_exit_code(run_cli, picture_file, tmp_path):
    bad, missing = tmp_path / "bad.png", tmp_path / "missing.png"
    bad.write_bytes(b"not an image")
    result = run_cli("perceive", bad, picture_file, missing, "--experts", "spots", "--json")
    assert result.exit_code == 1
    assert [row["image"] for row in rows(result)] == [str(bad), str(picture_file), str(missing)]
    assert "error" in rows(result)[0] and "segments" in rows(result)[1]
    errors = [line for line in result.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 2 and "Traceback" not in result.stderr


def test_only_unreadable_images(run_cli, tmp_path):
    result = run_cli("perceive", tmp_path / "missing.png", "--experts", "spots")
    assert result.exit_code == 1 and result.stdout == ""


def test_strict_turns_a_failing_expert_into_exit_code_1(run_cli, picture_file):
    assert run_cli("perceive", picture_file, "--experts", "spots,broken").exit_code == 0
    assert run_cli("perceive", picture_file, "--experts", "spots,broken", "--strict").exit_code == 1
    assert run_cli("perceive", picture_file, "--experts", "spots", "--strict").exit_code == 0


def test_a_second_call_perceives_nothing_twice_unless_told(run_cli, known, picture_file):
    spots = known.experts["spots"]
    for _ in range(2):
        run_cli("perceive", picture_file, "--experts", "spots")
    assert spots.calls == 1
    run_cli("perceive", picture_file, "--experts", "spots", "--no-cache")
    assert spots.calls == 2


def test_options_reach_the_expert(run_cli, picture_file):
    result = run_cli("perceive", picture_file, "--experts", "spots", "--option", "spots.least=0.25", "--json")
    assert rows(result)[0]["segments"][0]["score"] == 0.25


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--experts", "spot"), "unknown expert 'spot'; did you mean 'spots'?"),
        (("--experts", "spots", "--option", "spots.leest=1"), "did you mean 'least'?"),
        (("--experts", "spots", "--option", "spots.least=2"), "least"),
        (("--experts", "spots", "--option", "least=1"), "write EXPERT.KEY=VALUE, such as shapes.least=1"),
        (
            ("--experts", "spots", "--option", "sptos.least=1"),
            "'sptos' is not among the experts used here; did you mean 'spots'?",
        ),
        (("--experts", "spots", "--option", "spots.least"), "write key=value"),
        (("--experts", ","), "no expert"),
    ],
)
def test_a_wrong_argument_is_a_sentence(run_cli, picture_file, arguments, words):
    result = run_cli("perceive", picture_file, *arguments)
    assert result.exit_code == 1 and words in result.stderr


def test_the_time_limit_and_device_are_handed_on(run_cli, picture_file, monkeypatch):
    seen = {}

    class Spy(Perceiver):
        def __init__(self, *arguments, **settings):
            seen.update(settings)
            super().__init__(*arguments, **settings)

    monkeypatch.setattr("moai.perception.running.perceiver.Perceiver", Spy)
    run_cli("perceive", picture_file, "--experts", "spots", "--time-limit", "2.5", "--device", "meta", "--no-cache")
    assert (seen["time_limit"], seen["device"], seen["store"]) == (2.5, "meta", None)


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        ((), ("cpu", 60.0, None)),
        (("--device", "cuda:0,spots=cpu"), ({"*": "cuda:0", "spots": "cpu"}, 60.0, None)),
        (("--device", "spots=cpu, reader=cuda:1"), ({"spots": "cpu", "reader": "cuda:1"}, 60.0, None)),
        (("--time-limit", "30,reader=0.5"), ("cpu", {"*": 30.0, "reader": 0.5}, None)),
        (("--time-limit", "none"), ("cpu", None, None)),
        (("--time-limit", "reader=none"), ("cpu", {"reader": None}, None)),
        (("--max-memory", "8GB"), ("cpu", 60.0, "8GB")),
    ],
)
def test_settings_for_all_or_for_one(run_cli, picture_file, monkeypatch, arguments, expected):
    seen = {}

    class Spy(Perceiver):
        def __init__(self, *arguments, **settings):
            seen.update(settings)
            super().__init__(*arguments, **settings)

    monkeypatch.setattr("moai.perception.running.perceiver.Perceiver", Spy)
    assert run_cli("perceive", picture_file, "--experts", "spots,reader", *arguments).exit_code == 0
    assert (seen["device"], seen["time_limit"], seen["max_memory"]) == expected


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--device", "cpu,cuda:0"), "write one value for all, and EXPERT=VALUE once for each exception"),
        (("--device", "spots="), "write one value for all"),
        (("--device", "sptos=cpu"), "device is given for expert 'sptos', which is not listed; did you mean 'spots'?"),
        (("--device", ""), "device must be a non-empty string"),
        (("--time-limit", "soon"), "write seconds, such as 60 or 30,easyocr=120"),
        (("--time-limit", "0"), "time_limit must be positive seconds"),
        (("--time-limit", "inf"), "time_limit must be positive seconds, or None for no limit, not inf"),
        (("--max-memory", "plenty"), "'plenty' is no amount of memory; write a number of bytes, or one such as 8GB"),
    ],
)
def test_a_wrong_setting_is_a_sentence(run_cli, picture_file, arguments, words):
    result = run_cli("perceive", picture_file, "--experts", "spots", *arguments)
    assert result.exit_code == 1 and words in result.stderr


def test_set_is_another_word_for_option(run_cli, picture_file):
    result = run_cli("perceive", picture_file, "--experts", "spots", "--set", "spots.least=0.25", "--json")
    assert rows(result)[0]["segments"][0]["score"] == 0.25


def test_experts_that_take_turns_look_at_all_images_and_a_bad_one_still_costs_the_exit_code(
    run_cli, known, picture_file, tmp_path, monkeypatch
):
    monkeypatch.setattr("moai.data.perceive_images.CHUNK", 2)
    loads = []
    monkeypatch.setattr(known.experts["spots"], "load", lambda self, device="cpu": loads.append(device))
    images = [picture_file, tmp_path / "missing.png", picture_file, picture_file]
    settings = ("--experts", "spots,reader", "--max-memory", "0", "--no-cache")
    result = run_cli("perceive", *images, *settings, "--json", "--overlay", tmp_path / "seen")
    assert result.exit_code == 1 and loads == ["cpu"]
    assert ["error" in row for row in rows(result)] == [False, True, False, False]
    assert all(row["segments"] and row["texts"] for row in rows(result) if "error" not in row)
    assert len(list((tmp_path / "seen").iterdir())) == 3


def test_one_overlay_is_written_where_asked(run_cli, picture_file, tmp_path):
    out = tmp_path / "new" / "out.png"
    result = run_cli("perceive", picture_file, "--experts", "spots", "--overlay", out)
    assert out.is_file() and f"overlay:  {out}" in result.stdout


def test_several_overlays_keep_their_numbers(run_cli, picture_file, tmp_path):
    out = tmp_path / "out.png"
    run_cli("perceive", picture_file, tmp_path / "missing.png", picture_file, "--experts", "spots", "--overlay", out)
    assert sorted(path.name for path in tmp_path.glob("out*.png")) == ["out-1.png", "out-3.png"]


@pytest.mark.parametrize("name", ["out.nonsense", "picture.png/out.png"])
def test_an_overlay_that_cannot_be_saved_is_a_sentence(run_cli, picture_file, tmp_path, name):
    result = run_cli("perceive", picture_file, "--experts", "spots", "--overlay", tmp_path / name)
    assert result.exit_code == 1 and "\nerror: " in result.stderr
    assert name.partition("/")[0] in result.stderr and "Traceback" not in result.stderr


def test_a_folder_gets_one_overlay_per_image_by_name(tmp_path):
    images = ["a/x.jpg", "b/x.png", "y.png"]
    assert overlay_paths(str(tmp_path), images) == [tmp_path / name for name in ("x.png", "x-2.png", "y.png")]
    assert overlay_paths("seen", ["a/x.jpg"]) == [Path("seen/x.png")]
    assert overlay_paths("seen.d/", ["a/x.jpg"]) == [Path("seen.d/x.png")]
    assert overlay_paths(None, images) == [None, None, None]


def test_many_images_are_read_in_chunks(run_cli, picture_file, monkeypatch):
    monkeypatch.setattr("moai.data.perceive_images.CHUNK", 2)
    result = run_cli("perceive", *[picture_file] * 5, "--experts", "spots", "--json", "--no-cache")
    assert len(rows(result)) == 5 and "perceiving 5-5 of 5" in result.stderr


def test_an_expert_that_looks_only_where_it_is_named(run_cli, picture_file, monkeypatch):
    spots = Perceiver(["spots"]).experts[0]
    monkeypatch.setattr(type(spots), "by_default", False)
    assert "spots" not in run_cli("perceive", picture_file).stdout
    assert "spots 3" in run_cli("perceive", picture_file, "--experts", "spots").stdout
