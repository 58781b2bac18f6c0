"""Experts by name with options, and settings for all or by name: mistakes are errors before anything is loaded."""

from __future__ import annotations

import pytest
from fake_experts import Base, expert, heavy, reds

from moai.errors import ExpertError
from moai.expert import Options
from moai.hookspecs import hookimpl
from moai.perception.running.perceiver import Perceiver
from moai.perception.running.settings import record_experts, usable_experts
from moai.plugins import load_registry


@pytest.fixture
def registry(monkeypatch):
    class Lamp(Base):
        name = "lamp"

        class Options(Options):
            watts: int = 5

    class Plugin:
        @hookimpl
        def register_experts(self, register):
            register(Lamp)

    monkeypatch.setenv("MOAI_PLUGINS", "")
    return load_registry(plugins=[Plugin()])


def test_experts_by_name_with_options(registry):
    perceiver = Perceiver(["lamp"], options={"lamp": {"watts": 9}}, registry=registry)
    assert perceiver.experts[0].options.watts == 9


@pytest.mark.parametrize(
    "experts,options,message",
    [
        (["lmap"], {}, "unknown expert 'lmap'; did you mean 'lamp'?"),
        (["lamp"], {"lamp": {"wats": 9}}, "no option 'wats'; did you mean 'watts'?"),
        (["lamp"], {"lamp": {"watts": "many"}}, "option 'watts'"),
        (["lamp"], {"lmap": {}}, "options are given for expert 'lmap', which is not listed; did you mean 'lamp'?"),
        (["lamp", "lamp"], {}, "'lamp' is listed twice"),
        ([3], {}, "names or Expert objects, not 3"),
        ([expert("made")], {"made": {}}, "already built; pass its options where you make it"),
    ],
)
def test_mistakes_are_errors_at_construction(registry, experts, options, message):
    with pytest.raises(ExpertError) as caught:
        Perceiver(experts, options=options, registry=registry)
    assert message in str(caught.value)


def test_a_run_keeps_what_its_experts_are_and_says_what_has_changed(registry, monkeypatch, caplog):
    monkeypatch.setattr("moai.perception.running.settings.process_registry", lambda: registry)
    lamp = registry.experts["lamp"]
    monkeypatch.setattr(lamp, "weights_id", lambda self: f"hash of {self.options.watts}")
    monkeypatch.setitem(registry.origins, "lamp", "moai-lamp 0.3")
    options = {"lamp": {"watts": 9}}
    kept = record_experts(["lamp"], options)
    assert kept["lamp"] == {
        "role": "open_world", "version": "1", "distribution": "moai-lamp", "distribution_version": "0.3",
        "weights": "none", "weights_id": "hash of 9", "licence": "",
    }  # fmt: skip
    assert usable_experts(["lamp"], kept, options) == ["lamp"] and not caplog.records
    assert usable_experts(["lamp"], kept, {}) == ["lamp"]
    assert "has other weights (hash of 5) than the run was trained with (hash of 9)" in caplog.text
    caplog.clear()
    monkeypatch.setattr(lamp, "version", "2")
    assert usable_experts(["lamp"], kept, options) == ["lamp"]
    assert "expert 'lamp' has version 2; the run was trained with 1 (moai-lamp)" in caplog.text
    caplog.clear()
    del registry.experts["lamp"]
    assert usable_experts(["lamp"], kept, options) == []
    assert "expert 'lamp' is not installed, so answers do without it; pip install moai-lamp" in caplog.text


def test_weights_that_cannot_be_found_are_not_compared(registry, monkeypatch, caplog):
    monkeypatch.setattr("moai.perception.running.settings.process_registry", lambda: registry)
    monkeypatch.setattr(registry.experts["lamp"], "weights_id", lambda self: 1 / 0)
    kept = record_experts(["lamp"], {})
    assert kept["lamp"]["weights_id"] == ""
    assert usable_experts(["lamp"], {"lamp": {**kept["lamp"], "weights_id": "abc"}}) == ["lamp"] and not caplog.text


@pytest.mark.parametrize("arguments", [{"batch_size": 0}, {"time_limit": 0}, {"time_limit": float("nan")}])
def test_numbers_are_checked(arguments):
    with pytest.raises(ExpertError, match="must be"):
        Perceiver([], **arguments)


def test_each_expert_gets_its_device():
    one, two, three = heavy("one"), heavy("two"), heavy("three")
    Perceiver([one, two, three], device={"*": "cuda:1", "two": "cpu"}).perceive(reds(1))
    assert [expert.events[0] for expert in (one, two, three)] == ["load cuda:1", "load cpu", "load cuda:1"]
    other = heavy("other")
    Perceiver([other], device={}).perceive(reds(1))
    assert other.events[0] == "load cpu"


@pytest.mark.parametrize(
    "settings,message",
    [
        ({"device": {"tow": "cpu"}}, "device is given for expert 'tow', which is not listed; did you mean 'two'?"),
        ({"device": {"two": ""}}, "device of expert 'two' must be a non-empty string"),
        ({"time_limit": {"two": 0}}, "time_limit of expert 'two' must be positive seconds"),
        ({"time_limit": "soon"}, "time_limit must be positive seconds"),
        ({"max_memory": "much"}, "'much' is no amount of memory"),
    ],
)
def test_wrong_settings_are_errors_of_one_sentence(settings, message):
    with pytest.raises(ExpertError) as caught:
        Perceiver([heavy("two")], **settings)
    assert message in str(caught.value)
