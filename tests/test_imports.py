"""What `import moai` costs, which names are public, and which way imports point inside the package."""

from __future__ import annotations

import ast
import importlib.util
import os
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import moai
from moai import plugin_api

PACKAGE = Path(moai.__file__).parent
HEAVY = ("torch", "transformers", "numpy", "PIL", "timm", "cv2", "easyocr", "matplotlib", "pandas", "pydantic", "rich")
PUBLIC = {
    "Answer", "Augmented", "Detection", "Expert", "Mask", "MoaiConfig", "MoaiError", "MoaiForConditionalGeneration",
    "MoaiProcessor", "Options", "Perceiver", "Perception", "Relation", "Segment", "Store", "TextLine", "__version__",
    "check_expert", "hookimpl", "load", "read_image", "verbalize",
}  # fmt: skip

# A module may import its own level and those below. The longest matching prefix counts.
LEVELS = {
    "moai.dependencies": 0,
    "moai.errors": 0,
    "moai.hookspecs": 0,
    "moai.types": 0,
    "moai.compat": 1,
    "moai.assets": 1,
    "moai.expert": 1,
    "moai.images": 1,
    "moai.our_plugins": 0,
    "moai.plugins": 1,
    "moai.registrars": 1,
    "moai.scaffold": 1,
    "moai.doctor": 2,
    "moai.perception": 2,
    "moai.testing": 2,
    "moai.data": 3,
    "moai.model": 3,
    "moai.recipe": 4,
    "moai.answering": 5,
    "moai.training": 5,
    "moai.evaluation": 6,
    "moai.cli": 7,
}
# These name what lies above them, in functions that run later: the public names, those for plugins, the core's own
# plugin, and what transformers calls.
ROOTS = {"moai", "moai.builtin", "moai.plugin_api", "moai.registration"}
# Where perceptions become text and tokens for the model, and so both halves meet.
MEETING_PLACES = {f"moai.model.processor.{name}" for name in ("processor", "native_vision", "verbalized")}


def run(code: str, *flags: str) -> str:
    """Run code in a fresh interpreter and return what it prints."""
    environment = {**os.environ, "PYTHONPATH": str(PACKAGE.parent)}
    command = [sys.executable, *flags, "-c", textwrap.dedent(code)]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def loaded_after(code: str) -> set[str]:
    return set(run(f"{code}\nimport sys; print('\\n'.join(sys.modules))").split())


def test_import_moai_loads_nothing_heavy():
    assert loaded_after("import moai").isdisjoint((*HEAVY, "click", "pluggy"))


def test_the_version_loads_nothing_heavy():
    code = "from moai.cli.main import cli\ncli(['--version'], standalone_mode=False)"
    assert loaded_after(code).isdisjoint((*HEAVY, "pluggy"))


def test_help_loads_the_plugins_with_commands_and_nothing_heavy():
    code = "from moai.cli.main import cli\ncli(['--help'], standalone_mode=False)"
    loaded = loaded_after(code)
    assert loaded.isdisjoint((*HEAVY, "moai.expert", "moai.builtin"))
    assert "moai_shapes" not in loaded and "moai_official.command" not in loaded


@pytest.mark.parametrize("command", ["quickstart", "experts", "perceive", "train", "eval", "ask"])
def test_the_help_of_a_command_loads_nothing_heavy(command):
    code = f"from moai.cli.main import cli\ncli(['{command}', '--help'], standalone_mode=False)"
    assert loaded_after(code).isdisjoint((*HEAVY, "pluggy"))


def test_the_public_names_are_pinned():
    assert set(moai.__all__) == PUBLIC
    assert sorted(moai.__all__) == moai.__all__
    assert set(dir(moai)) >= PUBLIC


def defined_in(home: str) -> set[str]:
    """Names that a module's own source defines."""
    spec = importlib.util.find_spec(home)
    assert spec is not None, f"{home} does not exist"
    tree = ast.parse(Path(spec.origin).read_text())
    defined = {node.name for node in tree.body if isinstance(node, (ast.ClassDef, ast.FunctionDef))}
    targets = [target for node in tree.body if isinstance(node, ast.Assign) for target in node.targets]
    return defined | {name.id for target in targets for name in ast.walk(target) if isinstance(name, ast.Name)}


@pytest.mark.parametrize("name", sorted(PUBLIC - {"__version__"}))
def test_every_public_name_has_a_home_that_defines_it(name):
    assert name in defined_in(moai._HOMES[name])


@pytest.mark.parametrize("name", sorted(plugin_api.__all__))
def test_every_name_for_plugins_has_a_home_that_defines_it(name):
    home = plugin_api._HOMES[name]
    assert name in defined_in(home)
    assert getattr(plugin_api, name) is getattr(importlib.import_module(home), name)


def test_the_names_for_plugins_load_nothing_by_themselves():
    assert loaded_after("import moai.plugin_api").isdisjoint((*HEAVY, "click", "pluggy"))
    with pytest.raises(AttributeError, match="'moai.plugin_api' has no attribute 'resolv'"):
        plugin_api.resolv  # noqa: B018


def test_what_finds_plugins_imports_nothing_of_what_it_finds():
    found = {target for name in ("plugins", "registrars") for target in imports_of(PACKAGE / f"{name}.py")}
    allowed = {"moai", "moai.errors", "moai.expert", "moai.hookspecs", "moai.our_plugins", "moai.plugins"}
    assert {target for target in found if target.partition(".")[0] == "moai"} <= {*allowed, "moai.registrars"}


def test_names_are_resolved_on_use():
    assert moai.MoaiError is importlib.import_module("moai.errors").MoaiError
    with pytest.raises(AttributeError, match="no attribute 'lod'"):
        moai.lod  # noqa: B018


def imports_of(path: Path) -> set[str]:
    """Absolute names of what a file imports from moai, at any depth, except for type checkers."""
    found = set()
    pending = list(ast.iter_child_nodes(ast.parse(path.read_text())))
    while pending:
        node = pending.pop()
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
            pending.extend(node.orelse)
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write it out"
            found |= {_module(f"{node.module}.{alias.name}") or node.module for alias in node.names}
        pending.extend(ast.iter_child_nodes(node))
    return found


def _module(name: str) -> str | None:
    """The name, when it is a module of ours and not something inside one."""
    path = PACKAGE.parent.joinpath(*name.split("."))
    return name if name.startswith("moai.") and (path.with_suffix(".py").is_file() or path.is_dir()) else None


def name_of(path: Path) -> str:
    parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def level(name: str) -> int:
    matching = [prefix for prefix in LEVELS if name == prefix or name.startswith(prefix + ".")]
    assert matching, f"{name} has no level; add it to LEVELS"
    return LEVELS[max(matching, key=len)]


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=name_of)
def test_imports_point_downwards(path):
    name = name_of(path)
    if name in ROOTS:
        return
    ours = {target for target in imports_of(path) if target.startswith("moai.") and target not in ROOTS}
    upwards = {target for target in ours if level(target) > level(name)}
    assert not upwards, f"{name} (level {level(name)}) imports from above: {sorted(upwards)}"


def test_the_model_never_sees_a_perception_and_perception_never_sees_a_tensor():
    for path in SOURCES:
        name, targets = name_of(path), imports_of(path)
        if name.startswith("moai.model") and name not in MEETING_PLACES:
            assert not {t for t in targets if t.startswith("moai.perception")}, name
        if name.startswith("moai.perception"):
            assert not {t for t in targets if t.split(".")[0] in ("torch", "torchvision", "transformers", "timm")}, name


def test_files_stay_small():
    lengths = {name_of(path): len(path.read_text().splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > 350} == {}


# --- registration with transformers, on a stand-in for it ------------------------------------------------------------

FAKE = {
    "transformers/__init__.py": "",
    "transformers/models/__init__.py": "",
    "transformers/models/auto/__init__.py": "",
    "transformers/models/auto/configuration_auto.py": "REGISTERED = []",
    "transformers/models/auto/modeling_auto.py": "REGISTERED = []",
    "transformers/models/auto/processing_auto.py": "from . import configuration_auto\nREGISTERED = []",
    "ours/__init__.py": "",
    "ours/config.py": "from transformers.models.auto import configuration_auto as a\na.REGISTERED.append('config')",
    "ours/modeling.py": "from transformers.models.auto import modeling_auto as a\na.REGISTERED.append('model')",
    "ours/processing.py": "from transformers.models.auto import processing_auto as a\na.REGISTERED.append('processor')",
}
HOOKS = """
import sys
from moai.registration import register_with_transformers
# `import moai` waits for the real transformers; here its hooks would fire on the stand-in
sys.meta_path[:] = [finder for finder in sys.meta_path if type(finder).__name__ != "_PostImportFinder"]
register_with_transformers({
    "transformers.models.auto.configuration_auto": "ours.config",
    "transformers.models.auto.modeling_auto": "ours.modeling",
    "transformers.models.auto.processing_auto": "ours.processing",
})
"""


@pytest.fixture
def fake(tmp_path):
    """``fake(before, after)``: run code before and after the hooks are set, beside a stand-in for transformers."""
    for name, text in FAKE.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)

    def run_fake(before: str, after: str) -> str:
        path = f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        return run(path + before + HOOKS + after).strip()

    return run_fake


def test_importing_transformers_registers_us(fake):
    code = "from transformers.models.auto import modeling_auto as m, processing_auto as p, configuration_auto as c\n"
    assert fake("", code + "print(c.REGISTERED, m.REGISTERED, p.REGISTERED)") == "['config'] ['model'] ['processor']"


def test_nothing_of_ours_is_imported_before(fake):
    assert fake("", "print([n for n in sys.modules if n.startswith(('ours', 'transformers'))])") == "[]"


def test_transformers_imported_first_registers_at_once(fake):
    before = "from transformers.models.auto import modeling_auto as m\n"
    assert fake(before, "print(m.REGISTERED, 'ours.config' in sys.modules)") == "['model'] False"


def test_our_module_imported_first_is_not_imported_into_itself(fake):
    code = "import ours.modeling\nfrom transformers.models.auto import modeling_auto as m\nprint(m.REGISTERED)"
    assert fake("", code) == "['model']"


def test_the_watched_module_keeps_its_own_loader_and_the_finder_leaves(fake):
    code = """
from transformers.models.auto import modeling_auto as m, processing_auto as p
print(type(m.__loader__).__name__, type(m.__spec__.loader).__name__)
print([type(f).__name__ for f in sys.meta_path if 'PostImport' in type(f).__name__])
"""
    assert fake("", code).splitlines() == ["SourceFileLoader SourceFileLoader", "[]"]


def test_two_finders_do_not_ask_each_other_for_ever(fake):
    code = """
register_with_transformers({"transformers.models.auto.modeling_auto": "ours.processing"})
from transformers.models.auto import modeling_auto as m, processing_auto as p
print(m.REGISTERED, p.REGISTERED)
"""
    assert fake("", code) == "['model'] ['processor']"


def test_a_defect_of_ours_does_not_break_transformers(fake, tmp_path):
    (tmp_path / "ours" / "modeling.py").write_text("raise ValueError('ours')")
    code = """
import warnings
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter('always')
    from transformers.models.auto import modeling_auto as m
print(m.REGISTERED, [str(w.message) for w in caught if 'ours.modeling' in str(w.message)])
"""
    assert "ours.modeling could not be registered with transformers: ValueError: ours" in fake("", code)


@pytest.mark.parametrize("name", ["DetrModel", "LlamaConfig", "LlamaForCausalLM", "AutoProcessor"])
def test_wherever_the_import_of_transformers_begins_ours_is_registered(name):
    code = f"""
        import warnings; warnings.simplefilter("error", RuntimeWarning)
        import moai
        from transformers import {name}, AutoModelForImageTextToText as Auto
        from moai.model.config import MoaiConfig
        print(Auto._model_mapping[MoaiConfig].__name__)
    """
    assert run(code).strip() == "MoaiForConditionalGeneration"
