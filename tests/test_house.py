"""The house rules that a test can read: sizes, docstrings, honest excepts, hooks, recipes, names, no machine paths."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

from moai import hookspecs
from moai.plugins import load_registry
from moai.recipe.loading import load_recipe

ROOT = Path(__file__).parents[1]
SOURCES = sorted(path for folder in ("moai", "plugins", "recipes") for path in (ROOT / folder).rglob("*.py"))
RECIPES = sorted([*ROOT.glob("recipes/**/*.y*ml"), *ROOT.glob("plugins/*/*/recipes/**/*.y*ml")])
TOP_LEVEL = {"pyproject.toml", "requirements.lock", "MANIFEST.in", "README.md", "LICENSE", "Makefile", "CHANGELOG.md"}
TOP_LEVEL |= {"moai", "plugins", "recipes", "tests", "benchmarks", "docs"}
# Cut in two, so that this file does not hold what it looks for.
FORBIDDEN = ("/wo" + "rk/", "/tm" + "p/", "pypi" + ".org", "files.python" + "hosted")
MAX_FILE, MAX_FUNCTION = 350, 60
# Its signature and the meaning of each of its arguments are longer than that by themselves, so its body is counted.
FORWARD = ("moai/model/modeling.py", "forward")


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def in_repository() -> list[str]:
    """Paths that git tracks or would track."""
    if not (ROOT / ".git").exists():
        pytest.skip("not a git checkout")
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    return sorted(name for name in set(listed) if (ROOT / name).is_file())


def function_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function from its ``def`` to its end: signature, docstring and body."""
    return function.end_lineno - function.lineno + 1


def body_length(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
    """Lines of a function's body without its docstring."""
    body = function.body[1:] if ast.get_docstring(function) is not None else function.body
    return body[-1].end_lineno - body[0].lineno + 1 if body else 0


def swallows(handler: ast.ExceptHandler) -> bool:
    """True for ``except:``, and for ``except Exception`` (or wider, or among others) that does nothing."""
    if handler.type is None:
        return True
    kinds = handler.type.elts if isinstance(handler.type, ast.Tuple) else [handler.type]
    wide = any(isinstance(kind, ast.Name) and kind.id in ("Exception", "BaseException") for kind in kinds)
    idle = all(
        isinstance(node, (ast.Pass, ast.Continue))
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        for node in handler.body
    )
    return wide and idle


@pytest.fixture(scope="module")
def trees() -> dict[str, ast.Module]:
    assert len(SOURCES) > 40
    return {name_of(path): ast.parse(path.read_text(encoding="utf-8")) for path in SOURCES}


def test_files_are_short():
    lengths = {name_of(path): len(path.read_text(encoding="utf-8").splitlines()) for path in SOURCES}
    assert {name: length for name, length in lengths.items() if length > MAX_FILE} == {}


def test_functions_are_short(trees):
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    found = [(name, node) for name, tree in trees.items() for node in ast.walk(tree) if isinstance(node, functions)]
    assert len(found) > 300
    long = {(name, node.name): node for name, node in found if function_length(node) > MAX_FUNCTION}
    assert set(long) == {FORWARD}, "split these; the public forward is the only exception"
    assert body_length(long[FORWARD]) <= MAX_FUNCTION


def test_every_file_says_what_it_knows(trees):
    silent = [name for name, tree in trees.items() if not ast.get_docstring(tree)]
    assert not silent, f"no module docstring in {', '.join(silent)}"


def test_no_exception_is_swallowed(trees):
    handlers = [(name, n) for name, tree in trees.items() for n in ast.walk(tree) if isinstance(n, ast.ExceptHandler)]
    assert len(handlers) > 10
    assert [f"{name}:{node.lineno}" for name, node in handlers if swallows(node)] == []


@pytest.mark.parametrize(
    ("code", "bad"),
    [
        ("except:\n  raise", True),
        ("except Exception:\n  pass", True),
        ("except (OSError, Exception):\n  ...", True),
        ("except Exception as error:\n  log(error)", False),
        ("except OSError:\n  pass", False),
    ],
)
def test_the_rule_on_exceptions_can_fail(code, bad):
    [handler] = ast.parse(f"try:\n  x\n{code}").body[0].handlers
    assert swallows(handler) is bad


def test_the_rule_on_length_can_fail():
    [function] = ast.parse("@once\ndef f(a):\n  '''One.\n\n  Two.'''\n" + "  a += 1\n" * 60).body
    assert (function_length(function), body_length(function)) == (64, 60)


def test_nothing_is_called_utils():
    assert [name for name in in_repository() if Path(name).stem in ("utils", "util", "helpers", "misc")] == []


def test_the_top_level_holds_only_what_belongs_there():
    tops = {name.partition("/")[0] for name in in_repository()}
    assert {"moai", "pyproject.toml"} <= tops
    assert {top for top in tops if not top.startswith(".")} <= TOP_LEVEL


def test_no_machine_and_no_registry_is_named():
    found = []
    for name in in_repository():
        text = (ROOT / name).read_bytes().decode("utf-8", errors="ignore")
        found += [f"{name}: {pattern}" for pattern in FORBIDDEN if pattern in text]
    assert found == []


def test_the_page_on_plugins_lists_the_hooks():
    page = (ROOT / "docs" / "plugins.md").read_text(encoding="utf-8")
    listed = dict(re.findall(r"^\| `(register_\w+)` \| `(register\([^`]*\))` \|", page, re.MULTILINE))
    specified = {name: hook for name, hook in vars(hookspecs).items() if hasattr(hook, "moai_spec")}
    assert set(listed) == set(specified) and len(listed) >= 4
    for name, call in listed.items():
        assert f"``{call}``" in specified[name].__doc__, f"{name} is documented as another call than {call}"


def test_there_are_recipes():
    assert {"quickstart", "easy-vqa", "easy-vqa-connector-only", "scenes", "official"} <= {
        path.stem for path in RECIPES
    }


@pytest.mark.parametrize("path", RECIPES, ids=name_of)
def test_recipes_fit_the_schema_and_name_what_exists(path):
    recipe, known = load_recipe(path), load_registry()
    for source in recipe.data.sources:
        known.get_format(source.format)
        if source.format == "dataset":
            known.get_dataset(source.name)
    if recipe.vision.kind == "encoder":
        known.get_connector(recipe.vision.connector.kind)
    for expert in recipe.perception.experts:
        assert set(recipe.perception.options.get(expert, {})) <= set(known.get_expert(expert).Options.model_fields)
    assert load_recipe(path).to_yaml() == recipe.to_yaml()


def test_the_bare_name_of_a_recipe_is_its_own():
    assert all(load_recipe(path).name == path.stem for path in RECIPES)
