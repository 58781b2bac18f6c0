"""`moai experts`."""

from __future__ import annotations

import json


def test_the_table_says_who_is_installed_and_why_not(run_cli, known):
    lines = run_cli("experts").stdout.splitlines()
    [spots] = [line for line in lines if "spots" in line]
    [absent] = [line for line in lines if "absent" in line]
    assert spots.split() == ["panoptic", "spots", "3", "moai-tests", "9.9", "installed"]
    assert "missing no_such_module_of_ours; install with: pip install absent" in absent


def test_a_broken_plugin_is_listed_and_not_fatal(run_cli, problem):
    result = run_cli("experts")
    assert result.exit_code == 0
    assert "warning: plugin 'moai-bad': cannot be imported: ImportError: no" in result.stderr


def test_json_holds_everything(run_cli, problem):
    listed = json.loads(run_cli("experts", "--json").stdout)
    assert [item["name"] for item in listed["experts"]] == ["spots", "reader", "broken", "absent"]
    assert listed["experts"][3]["installed"] is False
    assert listed["problems"] == [{"plugin": "moai-bad", "reason": "cannot be imported: ImportError: no"}]


def test_one_expert_with_its_options(run_cli, known):
    shown = run_cli("experts", "spots").stdout
    assert "Finds one red spot." in shown and "second paragraph" not in shown
    assert "licence:   Apache-2.0" in shown and "weights:   none" in shown
    assert "score below which a spot is dropped" in shown and ">= 0, <= 1" in shown
    options = {item["name"]: item for item in json.loads(run_cli("experts", "spots", "--json").stdout)["options"]}
    assert options["least"]["type"] == "float" and options["least"]["default"] == 0.5
    assert options["names"]["type"] == "tuple[str, ...]" and options["names"]["default"] == ["spot"]


def test_memory_and_threads_are_said(run_cli, known, monkeypatch):
    shown = run_cli("experts", "spots").stdout
    assert "memory:    not stated" in shown and "threads:   one call at a time" in shown
    monkeypatch.setattr(known.experts["spots"], "memory", 1_500_000_000)
    monkeypatch.setattr(known.experts["spots"], "thread_safe", True)
    shown = run_cli("experts", "spots").stdout
    assert "memory:    about 1.5 GB" in shown and "threads:   may run in several at once" in shown
    monkeypatch.setattr(known.experts["spots"], "memory", property(lambda self: 5))
    assert "memory:    depends on the options" in run_cli("experts", "spots").stdout
    facts = json.loads(run_cli("experts", "spots", "--json").stdout)
    assert facts["thread_safe"] is True and facts["memory"] is None


def test_an_unknown_expert_names_the_nearest(run_cli, known):
    result = run_cli("experts", "spot")
    assert result.exit_code == 1 and "did you mean 'spots'?" in result.stderr


def test_no_expert_at_all_says_what_to_install(run_cli, known):
    known.experts.clear()
    assert "pip install" in run_cli("experts").stdout
