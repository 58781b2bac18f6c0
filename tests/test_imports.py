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
    "IMAGE", "Answer", "Augmented", "Conversation", "Detection", "Expert", "Mask", "MoaiConfig", "MoaiError",
    "MoaiForConditionalGeneration", "MoaiProcessor", "Options", "Perceiver", "Perception", "Relation", "Sample",
    "Segment", "Store", "TextLine", "Turn", "__version__", "ablate_facts", "check_expert", "hookimpl", "load",
    "read_image", "verbalize",
}  # fmt: skip

# A file may import its own row and those above it. The longest matching prefix counts.
ROOMS = (
    (
        "moai.types",
        "moai.errors",
        "moai.hookspecs",
        "moai.dependencies",
        "moai.lazy_names",
        "moai.source_digest",
        "moai.plugin_output",
    ),
    (
        "moai.compat",
        "moai.plot_style",
        "moai.assets",
        "moai.expert",
        "moai.our_plugins",
        "moai.plugins",
        "moai.registrars",
        "moai.images",
    ),
    ("moai.perception", "moai.scaffold", "moai.testing", "moai.doctor"),
    ("moai.data", "moai.model"),
    ("moai.recipe",),
    ("moai.answering", "moai.fact_ablation", "moai.training"),
    ("moai.evaluation",),
    ("moai.cli",),
)
# These name what stands in any room, in functions that run later: public names, the core's own plugin, transformers.
ROOTS = {"moai", "moai.builtin", "moai.plugin_api", "moai.registration"}
# Where perceptions are made for the model and become its text and tokens, and so both halves meet.
MEETING_PLACES = {f"moai.model.processor.{name}" for name in ("processor", "perceptions", "experts")}
ENGINES = {"torch", "torchvision", "transformers", "accelerate", "safetensors", "numpy", "PIL", "matplotlib", "sqlite3"}
WRITES = {"write_text", "write_bytes", "mkdir", "unlink", "rename", "rmtree", "open", "save", "touch"}
MAX_COMMAND = 40  # lines of a function's body

Graph = dict[str, set[str]]  # file -> the files that it imports


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
    targets += [node.target for node in tree.body if isinstance(node, ast.AnnAssign)]
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
    assert {target for target in found if target.partition(".")[0] == "moai"} <= {
        *allowed,
        "moai.registrars",
        "moai.plugin_output",
    }


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


SOURCES = sorted(PACKAGE.rglob("*.py"))


@pytest.fixture(scope="module")
def graph() -> Graph:
    """The files of moai with the files of moai that they import."""
    imports = {name_of(path): imports_of(path) for path in SOURCES}
    return {name: (targets & imports.keys()) - {name} for name, targets in imports.items()}


def circles(graph: Graph) -> set[frozenset[str]]:
    """Sets of files that import each other, directly or through others (Tarjan's strongly connected components)."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(name: str) -> None:
        order[name] = lowest[name] = len(order)
        path.append(name)
        for target in graph[name]:
            if target not in order:
                visit(target)
                lowest[name] = min(lowest[name], lowest[target])
            elif target in path:
                lowest[name] = min(lowest[name], order[target])
        if lowest[name] == order[name]:
            component = path[path.index(name) :]
            del path[path.index(name) :]
            if len(component) > 1:
                found.add(frozenset(component))

    for name in graph:
        if name not in order:
            visit(name)
    return found


def level(name: str, rooms: tuple[tuple[str, ...], ...] = ROOMS) -> int:
    """The row of a file's room."""
    matching = [(len(room), row) for row, members in enumerate(rooms) for room in members
                if name == room or name.startswith(room + ".")]  # fmt: skip
    assert matching, f"{name} stands in no room; add it to ROOMS"
    return max(matching)[1]


def arrows_up(graph: Graph, rooms: tuple[tuple[str, ...], ...] = ROOMS, roots: set[str] = frozenset()) -> set[str]:
    """Imports of a file in a later room, as ``importer -> imported``."""
    edges = [(name, target) for name, targets in graph.items() for target in targets if not {name, target} & roots]
    return {f"{name} -> {target}" for name, target in edges if level(target, rooms) > level(name, rooms)}


def test_no_circle_of_files(graph):
    assert {tuple(sorted(circle)) for circle in circles(graph)} == set()


def test_imports_point_one_way(graph):
    assert arrows_up(graph, roots=ROOTS) == set()


def test_every_room_is_there(graph):
    rooms = [room for row in ROOMS for room in row]
    assert [room for room in rooms if not any(name == room or name.startswith(room + ".") for name in graph)] == []


def test_the_rules_on_imports_can_fail():
    rooms = (("low",), ("high",))
    graph = {"low.a": {"low.b"}, "low.b": {"low.c"}, "low.c": {"low.a"}, "high": {"low.a"}, "root": {"high"}}
    assert circles(graph) == {frozenset({"low.a", "low.b", "low.c"})}
    assert circles({**graph, "low.c": set()}) == set()
    assert arrows_up(graph, rooms, roots={"root"}) == set()
    assert arrows_up({**graph, "low.b": {"high"}}, rooms, roots={"root"}) == {"low.b -> high"}
    with pytest.raises(AssertionError, match="root stands in no room"):
        arrows_up(graph, rooms)


def test_an_import_inside_a_function_counts_and_one_for_type_checkers_does_not(tmp_path):
    path = tmp_path / "some.py"
    path.write_text(
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import moai.cli\n"
        "def later():\n    from moai.model import config\n    from moai.errors import MoaiError\n"
    )
    assert imports_of(path) == {"typing", "moai.model.config", "moai.errors"}


# --- the command line parses, calls and prints -----------------------------------------------------------------------


def test_nothing_but_the_command_line_imports_the_command_line(graph):
    users = {name for name, targets in graph.items() if any(target.startswith("moai.cli") for target in targets)}
    assert {name for name in users - ROOTS if not name.startswith("moai.cli")} == set()


def overdone(tree: ast.AST) -> list[str]:
    """What a file of the command line holds beyond parsing, calling and printing."""
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            length = body[-1].end_lineno - body[0].lineno + 1 if body else 0
            found += [f"{node.name} has {length} lines"] if length > MAX_COMMAND else []
        elif isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            found += [f"line {node.lineno} writes a file: {called}"] if called in WRITES else []
    return found


@pytest.mark.parametrize("path", [path for path in SOURCES if path.parent.name == "cli"], ids=name_of)
def test_a_command_parses_calls_and_prints(path):
    """Its functions are short; it computes nothing with an engine and writes no file: that is library code."""
    assert overdone(ast.parse(path.read_text())) == []
    assert {target.partition(".")[0] for target in imports_of(path)} & ENGINES == set()


def test_the_rule_on_commands_can_fail():
    body = "  x = 1\n" * (MAX_COMMAND + 1)
    assert overdone(ast.parse(f"def run():\n  'Doc.'\n{body}")) == [f"run has {MAX_COMMAND + 1} lines"]
    assert overdone(ast.parse("path.write_text('x')\nopen('x')")) == [
        "line 1 writes a file: write_text", "line 2 writes a file: open",
    ]  # fmt: skip
    assert overdone(ast.parse("def run():\n  print(evaluate())")) == []


# --- rooms that do not know each other -------------------------------------------------------------------------------


def test_the_model_imports_no_perception_and_perception_no_tensors():
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


@pytest.mark.slow
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


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=pytest.mark.slow) for name in ("DetrModel", "LlamaConfig", "LlamaForCausalLM")]
    + ["AutoProcessor"],
)
def test_wherever_the_import_of_transformers_begins_ours_is_registered(name):
    code = f"""
        import warnings; warnings.simplefilter("error", RuntimeWarning)
        import moai
        from transformers import {name}, AutoModelForImageTextToText as Auto
        from moai.model.config import MoaiConfig
        print(Auto._model_mapping[MoaiConfig].__name__)
    """
    assert run(code).strip() == "MoaiForConditionalGeneration"
