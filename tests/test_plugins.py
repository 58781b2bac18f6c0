"""Plugins register; a broken one is named and costs only itself."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType, SimpleNamespace

import pytest

import moai
from moai import plugins
from moai.errors import ExpertError, RecipeError
from moai.expert import Expert
from moai.hookspecs import hookimpl
from moai.plugins import load_registry
from moai.types import Perception


class Lamp(Expert):
    name, role, version = "lamp", "open_world", "1"

    def perceive(self, images, context):
        return [Perception() for _ in images]


class OtherLamp(Lamp):
    pass


class Torch(Lamp):
    name = "torch_light"


def plugin(name: str, **hooks) -> ModuleType:
    module = ModuleType(name)
    for hook, function in hooks.items():
        setattr(module, hook, hookimpl(function))
    return module


def offering(name: str, *experts) -> ModuleType:
    def register_experts(register):
        for kind in experts:
            register(kind)

    return plugin(name, register_experts=register_experts)


def point(name: str, load, distribution: str = "moai-x"):
    return SimpleNamespace(
        name=name, value=name, module=name, load=load, dist=SimpleNamespace(name=distribution, version="2.0")
    )


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The entry points of this test; none at first."""
    points = []
    monkeypatch.delenv("MOAI_PLUGINS", raising=False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: points if group == "moai" else [])
    return points


def reasons(registry) -> dict[str, str]:
    return {problem.plugin: problem.reason for problem in registry.problems}


def test_the_core_registers_through_the_same_hooks():
    registry = load_registry()
    assert registry.problems == []
    assert set(registry.templates) >= {(role, "en") for role in ("panoptic", "open_world", "scene_graph", "ocr")}
    assert {"mlp", "linear", "average"} <= set(registry.connectors)
    assert {"easy-vqa", "ablations/no-qk-norm"} <= set(registry.recipes)
    assert registry.commands["train"].target == "moai.cli.train:train"
    assert registry.datasets == registry.experts == registry.hosts == {}


def test_registering_loads_nothing_heavy():
    code = (
        "import sys; from moai.plugins import load_registry; load_registry()\n"
        "print([m for m in ('torch', 'transformers', 'cv2', 'PIL', 'matplotlib') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"MOAI_PLUGINS": "", "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
    )
    assert done.stdout.strip() == "[]", done.stderr


def test_a_given_plugin_is_listed_and_a_registry_is_fresh():
    registry = load_registry(plugins=[offering("lamps", Lamp)])
    assert registry.get_expert("lamp") is Lamp
    assert registry.origins["lamp"] == "lamps"
    assert "lamp" not in load_registry().experts


def test_an_entry_point_carries_its_distribution(installed):
    installed.append(point("lamps", lambda: offering("lamps", Lamp)))
    registry = load_registry()
    assert registry.origins == {"lamp": "moai-x 2.0"}


def test_one_broken_import_does_not_stop_the_others(installed):
    def broken():
        raise RuntimeError("no\nengine")

    def leaves():
        raise SystemExit(3)

    installed += [
        point("bad", broken),
        point("exits", leaves),
        point("good", lambda: offering("good", Lamp)),
    ]
    registry = load_registry()
    assert "lamp" in registry.experts
    assert reasons(registry) == {
        "bad": "cannot be imported: RuntimeError: no engine",
        "exits": "cannot be imported: SystemExit: 3",
    }


def test_a_hook_that_raises_is_charged_to_its_plugin():
    def register_datasets(register):
        raise KeyError("x")

    bad = plugin("bad", register_datasets=register_datasets)
    registry = load_registry(plugins=[bad, offering("good", Lamp)])
    assert "lamp" in registry.experts
    assert reasons(registry) == {"bad": "register_datasets raised KeyError: 'x'"}


def test_a_misspelt_hook_is_charged_with_the_nearest_name():
    bad = plugin("bad", register_expert=lambda register: register(Lamp))
    registry = load_registry(plugins=[bad, offering("good", Torch)])
    assert set(registry.experts) == {"torch_light"}
    assert reasons(registry)["bad"] == (
        "implements 'register_expert', which is no hook; did you mean 'register_experts'?"
    )


def test_a_wrong_hook_argument_is_charged():
    def register_experts(registrar):
        raise AssertionError("never called")

    registry = load_registry(plugins=[plugin("bad", register_experts=register_experts)])
    assert "registrar" in reasons(registry)["bad"]


def test_forgotten_hookimpl_is_charged():
    module = ModuleType("bare")
    module.register_experts = lambda register: register(Lamp)
    registry = load_registry(plugins=[module])
    assert "mark its functions with @moai.hookimpl" in reasons(registry)["bare"]


def test_the_first_of_two_equal_names_wins():
    registry = load_registry(plugins=[offering("one", Lamp), offering("two", OtherLamp, Torch)])
    assert registry.experts == {"lamp": Lamp, "torch_light": Torch}
    assert reasons(registry)["two"].startswith("expert 'lamp' is already registered; rename it")


def test_duplicate_data_sets_connectors_and_templates_are_refused():
    bad = plugin(
        "bad",
        register_datasets=lambda register: [register("signs", list), register("signs", list)],
        register_connectors=lambda register: register("mlp", list),
        register_templates=lambda register: register("ocr", "en", str),
    )
    registry = load_registry(plugins=[bad])
    assert [problem.plugin for problem in registry.problems] == ["bad"] * 3
    assert registry.get_template("ocr", "en") is not str


@pytest.mark.parametrize(
    "attributes,reason",
    [
        ({"name": "Big Lamp"}, "name must be lower-case"),
        ({"role": None}, "role must be lower-case"),
        ({"version": ""}, "has no version"),
        ({"requires": "panoptic"}, "requires must be a tuple of strings"),
        ({"Options": dict}, "Options must be a class"),
    ],
)
def test_bad_expert_classes(attributes, reason):
    registry = load_registry(plugins=[offering("bad", type("Bad", (Lamp,), attributes), Torch)])
    assert reason in reasons(registry)["bad"]
    assert set(registry.experts) == {"torch_light"}


def test_instances_functions_and_abstract_classes_are_no_experts():
    class Lazy(Expert):
        name, role, version = "lazy", "ocr", "1"

    registry = load_registry(plugins=[offering("bad", Lamp(), print, Lazy)])
    assert registry.experts == {}
    assert len(registry.problems) == 3
    assert "does not implement perceive" in registry.problems[2].reason


@pytest.mark.parametrize("value,expected", [("", set()), ("a", {"lamp"}), (" b , a ", {"lamp", "torch_light"})])
def test_moai_plugins_restricts(installed, monkeypatch, value, expected):
    installed += [point("a", lambda: offering("a", Lamp)), point("b", lambda: offering("b", Torch))]
    monkeypatch.setenv("MOAI_PLUGINS", value)
    registry = load_registry()
    assert set(registry.experts) == expected
    assert registry.problems == []


def test_moai_plugins_names_what_is_not_installed(installed, monkeypatch):
    installed.append(point("shapes", lambda: offering("shapes", Lamp)))
    monkeypatch.setenv("MOAI_PLUGINS", "shape")
    registry = load_registry()
    assert reasons(registry) == {"shape": "MOAI_PLUGINS asks for it, not installed; did you mean 'shapes'?"}


def test_the_same_entry_point_twice_is_loaded_once(installed):
    installed += [point("a", lambda: offering("a", Lamp)), point("a", lambda: offering("a", Lamp))]
    assert load_registry().problems == []


def test_unknown_names_give_the_nearest():
    signs = plugin("signs", register_datasets=lambda register: register("signs", list))
    registry = load_registry(plugins=[offering("good", Lamp), signs])
    with pytest.raises(ExpertError, match="unknown expert 'lmap'; did you mean 'lamp'?"):
        registry.get_expert("lmap")
    with pytest.raises(RecipeError, match="unknown data set 'sings'; did you mean 'signs'?"):
        registry.get_dataset("sings")
    with pytest.raises(RecipeError, match="unknown connector 'linaer'; did you mean 'linear'?"):
        registry.get_connector("linaer")
    with pytest.raises(RecipeError, match="role 'ocr' has no template in language 'tlh'; known: en"):
        registry.get_template("ocr", "tlh")


def test_an_unknown_expert_points_at_broken_plugins(installed):
    def broken():
        raise ImportError("boom")

    installed.append(point("lamps", broken))
    with pytest.raises(ExpertError, match="plugins with problems: lamps"):
        load_registry().get_expert("lamp")


def test_the_process_wide_registry_warns_once(installed, caplog):
    def broken():
        raise ImportError("boom")

    installed.append(point("lamps", broken))
    plugins.registry.cache_clear()
    try:
        assert plugins.registry() is plugins.registry()
        assert [record.getMessage() for record in caplog.records] == [
            "plugin 'lamps': cannot be imported: ImportError: boom"
        ]
    finally:
        plugins.registry.cache_clear()


def test_version_of_the_core_is_known():
    assert moai.__version__
