"""One file knows what differs between versions of transformers and torch; a reader of ``moai/compat.py`` has seen all.

Read by structure: no other file compares versions, names the renamed cache, or imports what is private upstream.
"""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, DynamicCache, LlamaConfig, LlavaConfig

from moai import compat
from moai.errors import PromptError

ROOT = Path(__file__).parents[1]
COMPAT = ROOT / "moai" / "compat.py"
SOURCES = sorted(
    path
    for folder in ("moai", "plugins", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.relative_to(ROOT).parts and "build" not in path.relative_to(ROOT).parts
)
OLD_NAMES = {"past_key_values", "cache_params"}
VERSIONS = {"version", "parse", "Version", "parse_version"}
ASKED = {"is_torch_version", "is_transformers_version", "is_torch_greater_or_equal"}
OURS = ("moai",)


def docstrings(tree: ast.Module) -> set[int]:
    """The ids of constants that are docstrings."""
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, kinds) and node.body]
    return {id(body[0].value) for body in bodies if isinstance(getattr(body[0], "value", None), ast.Constant)}


def names_the_cache(tree: ast.Module) -> set[int]:
    """Lines that name the cache as transformers once did: in a parameter, keyword, attribute, variable or string."""
    texts = docstrings(tree)
    found = set()
    for node in ast.walk(tree):
        named = {value for key in ("arg", "attr", "id", "value") if isinstance(value := getattr(node, key, None), str)}
        if named & OLD_NAMES and id(node) not in texts:
            found.add(node.lineno)
    return found


def compares_versions(tree: ast.Module) -> set[int]:
    """Lines where a version is compared with something, or a range of versions is asked for."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, (ast.Compare, ast.Match)):
            for part in ast.walk(node):
                called = part.func if isinstance(part, ast.Call) else None
                name = getattr(called, "attr", getattr(called, "id", None))
                theirs = isinstance(part, ast.Attribute) and getattr(part.value, "id", None) not in OURS
                if name in VERSIONS or (theirs and part.attr == "__version__"):
                    found.add(node.lineno)
        if isinstance(node, ast.Call) and getattr(node.func, "id", getattr(node.func, "attr", "")) in ASKED:
            found.add(node.lineno)
    return found


def imports_private_names(tree: ast.Module) -> set[int]:
    """Lines that import a name, or from a module, that starts with one underscore, from a package that is not ours."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and not node.level:
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        for path in paths:
            parts = path.split(".")
            private = any(part.startswith("_") and not part.endswith("__") for part in parts)
            if private and not parts[0].startswith(OURS):
                found.add(node.lineno)
    return found


RULES = {rule.__name__: rule for rule in (names_the_cache, compares_versions, imports_private_names)}


@pytest.mark.parametrize("rule", RULES)
def test_only_one_file_knows_what_differs_between_versions(rule):
    assert len(SOURCES) > 150 and COMPAT in SOURCES
    others = [path for path in SOURCES if path != COMPAT]
    found = {path: RULES[rule](ast.parse(path.read_text(encoding="utf-8"))) for path in others}
    assert [f"{path.relative_to(ROOT)}:{line}" for path, lines in found.items() for line in sorted(lines)] == []


@pytest.mark.parametrize(
    ("rule", "code", "bad"),
    [
        ("names_the_cache", "def f(past_key_values=None): ...", True),
        ("names_the_cache", "f(past_key_values=1)", True),
        ("names_the_cache", "f(**{'past_key_values': 1})", True),
        ("names_the_cache", "output.past_key_values", True),
        ("names_the_cache", "'cache_params' in names", True),
        ("names_the_cache", "def f():\n  '''Of past_key_values.'''", False),
        ("names_the_cache", "f(cache=1)", False),
        ("compares_versions", "import torch\ntorch.__version__ >= '2.6'", True),
        ("compares_versions", "Version(metadata.version('torch')) < Version('2.6')", True),
        ("compares_versions", "version('transformers').startswith('5') == True", True),
        ("compares_versions", "is_torch_version('>=', '2.6')", True),
        ("compares_versions", "print(torch.__version__)", False),
        ("compares_versions", "moai.__version__ == installed", False),
        ("imports_private_names", "from torch._subclasses import fake_tensor", True),
        ("imports_private_names", "from transformers.utils import _x", True),
        ("imports_private_names", "import torch._dynamo", True),
        ("imports_private_names", "from __future__ import annotations\nfrom moai.model.mixer.graft import _R", False),
    ],
)
def test_the_rules_can_fail(rule, code, bad):
    assert bool(RULES[rule](ast.parse(code))) is bad


# What is in that file ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", compat.CACHE_NAMES)
def test_the_cache_is_taken_from_arguments_under_either_name(name):
    cache = DynamicCache()
    arguments = {name: cache, "use_cache": True}
    assert compat.take_cache(arguments) is cache and arguments == {"use_cache": True}
    assert compat.take_cache({}) is None and compat.take_cache({name: None}) is None


def test_one_cache_and_a_none_are_no_two_caches():
    cache = DynamicCache()
    assert compat.take_cache({"cache": None, "past_key_values": cache}) is cache
    with pytest.raises(PromptError, match=f"give {compat.CACHE} alone"):
        compat.take_cache({"cache": DynamicCache(), "past_key_values": cache})


def test_a_function_is_given_the_cache_by_position_and_by_both_names():
    @compat.takes_cache
    def f(ids, cache=None, **rest):
        return ids, cache, rest

    assert f(1, 2) == f(1, cache=2) == f(1, past_key_values=2) == (1, 2, {})
    assert f(1, past_key_values=None, other=3) == (1, None, {"other": 3})


def test_the_names_of_a_function_come_first():
    def new(cache=None, **kwargs): ...

    def old(past_key_values=None): ...

    def neither(**kwargs): ...

    assert compat.cache_names(new)[0] == "cache" and compat.cache_names(old)[0] == "past_key_values"
    assert compat.cache_names(neither)[0] == compat.CACHE


def test_auto_classes_know_their_configurations():
    assert compat.has_model(AutoModelForCausalLM, LlamaConfig())
    assert not compat.has_model(AutoModelForCausalLM, LlavaConfig())
    assert compat.has_model(AutoModelForImageTextToText, LlavaConfig())


def test_a_module_that_was_compiled_in_place_is_told_from_others():
    module = torch.nn.Sequential(torch.nn.Linear(2, 2))
    assert not compat.is_compiled(module)
    module[0].compile(backend="eager")
    assert compat.is_compiled(module)


@pytest.mark.slow
def test_no_deprecated_name_of_transformers_is_used(tmp_path):
    """A forward and a generation in a process where each FutureWarning is an error."""
    code = (
        "import warnings; warnings.simplefilter('error', FutureWarning)\n"
        "import tiny\n"
        "model, processor = tiny.made()\n"
        "inputs = tiny.prompt_inputs(processor, ['What color?'], [tiny.seen('red')])\n"
        "output = model.generate(**inputs, max_new_tokens=3, min_new_tokens=3, return_dict_in_generate=True)\n"
        "assert output.sequences.shape[1] == inputs['input_ids'].shape[1] + 3\n"
        "assert model(**inputs, use_cache=False).logits.isfinite().all()\n"
    )
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, cwd=ROOT / "tests", capture_output=True, text=True, timeout=300, env=environment())
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr


def environment() -> dict[str, str]:
    import os

    return {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'tests'}"}
