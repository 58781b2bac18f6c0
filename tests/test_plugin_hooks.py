"""What the hooks for commands, hosts and recipes take, what they refuse, and what is not installed."""

from __future__ import annotations

import sys
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest

from moai import plugins
from moai.errors import ExpertError, HostError, RecipeError
from moai.hookspecs import hookimpl
from moai.our_plugins import BROUGHT, how_to_install
from moai.plugins import load_commands, load_registry
from moai.recipe.loading import load_recipe, resolve
from moai.recipe.places import find_recipe, find_recipe_folder, recipe_names

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def installed(monkeypatch):
    """The entry points of this test; none at first."""
    points = []
    monkeypatch.delenv("MOAI_PLUGINS", raising=False)
    monkeypatch.setattr(plugins, "entry_points", lambda group: points)
    for loaded in (plugins.registry, load_commands):
        loaded.cache_clear()
    yield points
    for loaded in (plugins.registry, load_commands):
        loaded.cache_clear()


def offering(hook: str, *calls: tuple) -> ModuleType:
    """A plugin that registers what the calls say through one hook."""
    module = ModuleType("offer")

    def implementation(register):
        for arguments in calls:
            register(*arguments)

    setattr(module, hook, hookimpl(implementation))
    return module


def reasons(registry) -> list[str]:
    return [problem.reason for problem in registry.problems]


# Commands -----------------------------------------------------------------------------------------------------------


def test_a_command_is_a_name_a_target_and_a_line():
    known = load_registry(plugins=[offering("register_commands", ("read-code", "codes.cli:read", "Read a code."))])
    assert known.problems == [] and known.commands["read-code"] == ("codes.cli:read", "Read a code.")
    assert "codes" not in sys.modules


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        (("Read", "codes:read", "Read."), "a command's name must be lower-case letters, digits, - or _, not 'Read'"),
        (
            ("read", "codes.read", "Read."),
            "command 'read': give 'module:attribute' of a click command, not 'c",
        ),
        (("read", print, "Read."), "command 'read': give 'module:attribute' of a click command"),
        (("read", "codes:read", "Read.\nAll."), "command 'read': its help must be one line"),
        (("read", "codes:read", " "), "command 'read': its help must be one line"),
        (("train", "codes:read", "Read."), "command 'train' is already registered; rename it"),
    ],
)
def test_what_is_no_command(call, reason):
    known = load_registry(plugins=[offering("register_commands", call)])
    assert len(known.problems) == 1 and reasons(known)[0].startswith(reason)
    assert known.commands["train"].target == "moai.cli.train:train" and "read" not in known.commands


def point(name: str, folder: Path, source: str):
    """An entry point of a module that is written into ``folder``."""
    (folder / f"{name}.py").write_text(source)

    def load():
        return __import__(name)

    return SimpleNamespace(
        name=name, value=name, module=name, load=load, dist=SimpleNamespace(name=f"moai-{name}", version="1")
    )


OFFERS = """
import moai


@moai.hookimpl
def register_commands(register):
    register("read-code", "codes.cli:read", "Read a code.")


@moai.hookimpl
def register_datasets(register):
    raise RuntimeError("only commands are asked for")
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        sys.modules.pop(path.stem, None)


def test_commands_are_found_without_importing_other_plugins(installed, folder):
    installed += [
        point("offers_commands", folder, OFFERS),
        point("offers_experts", folder, "raise RuntimeError('imported')"),
        point("offers_nothing_that_imports", folder, "register_commands = 1\nraise RuntimeError('imported')"),
    ]
    assert dict(load_commands()) == {"read-code": ("codes.cli:read", "Read a code.")}
    assert "offers_commands" in sys.modules and "offers_experts" not in sys.modules


def test_a_plugin_with_commands_that_cannot_be_imported_is_warned_of(installed, folder, caplog):
    installed.append(point("broken_commands", folder, "register_commands = 1\nraise RuntimeError('boom')"))
    assert load_commands() == {}
    assert [record.getMessage() for record in caplog.records] == [
        "plugin 'broken_commands': cannot be imported: RuntimeError: boom"
    ]


# Hosts --------------------------------------------------------------------------------------------------------------


def test_the_module_of_a_host_is_imported_when_it_is_asked_for(folder):
    (folder / "a_host.py").write_text("LOADED = True")
    known = load_registry(plugins=[offering("register_hosts", ("my_llama", "a_host"))])
    assert known.problems == [] and "a_host" not in sys.modules
    known.import_host("llama")
    assert "a_host" not in sys.modules
    known.import_host("my_llama")
    assert sys.modules["a_host"].LOADED


def test_a_host_that_cannot_be_imported_is_one_sentence():
    known = load_registry(plugins=[offering("register_hosts", ("my_llama", "no_such_host"))])
    with pytest.raises(HostError, match="a plugin's module no_such_host for the host 'my_llama' cannot be imported"):
        known.import_host("my_llama")


@pytest.mark.parametrize(
    ("call", "reason"),
    [
        ((None, "a_host"), "a host's model type is a string, as in its config.json, not None"),
        (("my_llama", "a host"), "host 'my_llama': give the dotted name of a module to import, not 'a host'"),
        (("my_llama", sys), "host 'my_llama': give the dotted name of a module to import"),
    ],
)
def test_what_is_no_host(call, reason):
    known = load_registry(plugins=[offering("register_hosts", call)])
    assert len(known.problems) == 1 and reasons(known)[0].startswith(reason) and known.hosts == {}


def test_a_model_type_is_registered_once():
    known = load_registry(plugins=[offering("register_hosts", ("my_llama", "one"), ("my_llama", "two"))])
    assert known.hosts == {"my_llama": "one"}
    assert reasons(known) == ["host 'my_llama' is already registered; rename it, or uninstall the other plugin"]


def test_a_configuration_imports_the_host_of_a_plugin_first(folder, monkeypatch):
    from moai.model.config import MoaiConfig

    (folder / "odd_host.py").write_text(
        "from transformers import AutoConfig, LlamaConfig\n"
        "class OddConfig(LlamaConfig):\n    model_type = 'odd_llama'\n"
        "AutoConfig.register('odd_llama', OddConfig)\n"
    )
    given = {"model_type": "moai", "text_config": {"model_type": "odd_llama", "hidden_size": 48}}
    known = load_registry(plugins=[offering("register_hosts", ("odd_llama", "odd_host"))])
    monkeypatch.setattr("moai.model.config.registry", lambda: known)
    assert type(MoaiConfig.from_dict(given).text_config).__name__ == "OddConfig"


# Recipes ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recipes(tmp_path, monkeypatch):
    """A folder of recipes that a plugin registers, and an empty working folder."""
    made = tmp_path / "installed"
    (made / "ablations-signs").mkdir(parents=True)
    (made / "signs.yaml").write_text("extends: easy-vqa\nname: signs\nseed: 7\n")
    (made / "ablations-signs" / "signs-no-ocr.yaml").write_text("extends: ../signs.yaml\nname: signs-no-ocr\n")
    known = load_registry(plugins=[offering("register_recipes", (made,))])
    assert known.problems == []
    monkeypatch.setattr("moai.recipe.places.registry", lambda: known)
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    return made


def test_recipes_of_a_plugin_are_found_by_name(recipes):
    assert {"signs", "ablations-signs/signs-no-ocr", "easy-vqa"} <= set(recipe_names())
    assert find_recipe("signs") == recipes / "signs.yaml"
    assert find_recipe_folder("ablations-signs") == recipes / "ablations-signs"
    with pytest.raises(RecipeError, match="or among those of moai and its plugins; did you mean 'signs'?"):
        find_recipe("sings")


def test_a_recipe_extends_another_by_name(recipes):
    base, own = load_recipe("easy-vqa"), load_recipe("signs")
    assert (own.name, own.seed, own.training) == ("signs", 7, base.training)
    (recipes / "odd.yaml").write_text("extends: easy-vga\n")
    with pytest.raises(RecipeError, match="no recipe 'easy-vga' .*did you mean 'easy-vqa'"):
        resolve(recipes / "odd.yaml")


def test_the_users_own_recipe_comes_before_a_plugins(recipes):
    Path("recipes").mkdir()
    Path("recipes/signs.yaml").write_text("")
    assert find_recipe("signs") == Path("recipes/signs.yaml")


@pytest.mark.parametrize("given", ["nowhere", None, 3])
def test_what_is_no_folder_of_recipes(given, tmp_path):
    known = load_registry(plugins=[offering("register_recipes", (given,), (tmp_path,))])
    assert len(known.problems) == 2
    assert all("is no folder with YAML files; give the folder" in reason for reason in reasons(known))


def test_a_name_of_moais_own_is_taken(tmp_path):
    (tmp_path / "easy-vqa.yaml").write_text("")
    known = load_registry(plugins=[offering("register_recipes", (tmp_path,))])
    assert reasons(known) == ["recipe 'easy-vqa' is already registered; rename it, or uninstall the other plugin"]
    assert known.recipes["easy-vqa"].parent != tmp_path


# What is not installed ----------------------------------------------------------------------------------------------


def test_what_comes_with_a_plugin_of_ours_names_it():
    bare = load_registry()
    with pytest.raises(RecipeError, match="^the data set 'easy-vqa' comes .*; pip install moai-easy-vqa$"):
        bare.get_dataset("easy-vqa")
    with pytest.raises(RecipeError, match="^the connector 'parrot' comes with a plugin .*; pip install moai-parrot$"):
        bare.get_connector("parrot")
    with pytest.raises(ExpertError, match="^the expert 'shapes' comes with a plugin .*; pip install moai-shapes$"):
        bare.get_expert("shapes")
    with pytest.raises(HostError, match="^the host 'moai_plora_llama' comes .*; pip install moai-official$"):
        bare.import_host("moai_plora_llama")
    with pytest.raises(RecipeError, match="^the recipe 'scenes' comes with a plugin .*; pip install moai-scenes$"):
        find_recipe("scenes")


def test_the_table_of_our_plugins_is_what_they_register(installed):
    ours = {tomllib.loads(path.read_text())["project"]["name"] for path in ROOT.glob("plugins/*/pyproject.toml")}
    installed += [p for p in entry_points(group="moai") if p.dist is not None and p.dist.name in ours]
    known = load_registry()
    tables = {"command": known.commands, "data set": known.datasets, "host": known.hosts, "expert": known.experts}
    tables["connector"] = known.connectors
    registered = {kind: set(table) for kind, table in tables.items()}
    registered["recipe"] = {name for name in known.recipes if "/" not in name}
    installed.clear()
    own = load_registry()
    registered["command"] -= set(own.commands)
    registered["connector"] -= set(own.connectors)
    registered["recipe"] -= set(own.recipes)
    assert registered == {kind: set(table) for kind, table in BROUGHT.items()}
    assert {name for table in BROUGHT.values() for name in table.values()} <= ours
    assert known.origins == {name: f"{BROUGHT['expert'][name]} 0.1.0" for name in BROUGHT["expert"]}
    assert how_to_install("expert", "unknown") is None
