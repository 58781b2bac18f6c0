"""Write a plugin package to start from: the name is checked, and the templates of this folder are filled.

Knows: the names and the contents of a plugin's files. Each template is a whole file in which ``$name`` and the like
are replaced, so that it can be read, and changed, as what it becomes.
"""

from __future__ import annotations

import re
from importlib.resources import files
from keyword import iskeyword
from pathlib import Path
from string import Template

from moai.errors import PluginError

ROLES = ("panoptic", "open_world", "scene_graph", "ocr")  # with a template of their own; any other role gets "own"
_NAME = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_ROLE = re.compile(r"[a-z][a-z0-9]*(_[a-z0-9]+)*")
_LONGEST = 40


def write_plugin(name: str, role: str, folder: Path) -> list[Path]:
    """Write a plugin package with one expert.

    Args:
        name: of the expert: lower-case letters, digits, single dashes.
        role: one of the paper's, or one of the plugin's own.
        folder: is made; may exist when it is empty.

    Returns:
        The files written.

    Raises:
        PluginError: a name or role that cannot be used, or a folder that is taken or cannot be written.
    """
    check_name(name, "an expert")
    if not _ROLE.fullmatch(role) or len(role) > _LONGEST:
        raise PluginError(f"role '{role}' must be lower-case letters, digits and single _, such as {ROLES[0]}")
    return _write(render(name, role), folder)


def write_dataset(name: str, folder: Path) -> list[Path]:
    """Write a plugin package with one data format, a sample file and a test.

    Args:
        name: of the format, as an expert's.
        folder: is made; may exist when it is empty.

    Returns:
        The files written.

    Raises:
        PluginError: a name that cannot be used, or a folder that is taken or cannot be written.
    """
    check_name(name, "a data format")
    return _write(render_dataset(name), folder)


def _write(texts: dict[str, str], folder: Path) -> list[Path]:
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise PluginError(f"{folder} exists and is not empty; choose another --folder, or remove it")
        written = [folder / path for path in texts]
        for path, text in zip(written, texts.values(), strict=True):
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    except OSError as error:
        raise PluginError(f"{folder} cannot be written: {error.strerror or error}; choose another --folder") from error
    return written


def check_name(name: str, of: str) -> None:
    """Raise PluginError, with a name that would do, when ``name`` cannot be that of an expert or a data format."""
    bare = name.strip().lower().removeprefix("moai-").removeprefix("moai_")
    better = "-".join(re.findall(r"[a-z0-9]+", bare)).lstrip("0123456789-")[:_LONGEST].strip("-")
    if name != better or not _NAME.fullmatch(name):
        hint = f"; write {better}" if better else ""
        raise PluginError(
            f"'{name}' cannot be {of}'s name: it takes lower-case letters, digits and single dashes, starts with "
            f"a letter, has at most {_LONGEST} characters, and the package adds moai- itself{hint}"
        )


def render(name: str, role: str) -> dict[str, str]:
    """Render the templates for a valid name and role: path inside the package -> text."""
    values = {**_values(name), "what": "expert", "role": role}
    module, kind = values["module"], role if role in ROLES else "own"
    templates = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README.md.txt",
        f"{module}.py": f"expert_{kind}.py.txt",
        f"tests/test_{module.removeprefix('moai_')}.py": f"test_{kind}.py.txt",
    }
    return {path: Template(_text(template)).substitute(values) for path, template in templates.items()}


def render_dataset(name: str) -> dict[str, str]:
    """Path inside the package -> text, for a valid name of a data format."""
    values = {**_values(name), "what": "data format"}
    module = values["module"]
    templates = {
        "pyproject.toml": "pyproject.toml.txt",
        "README.md": "README_dataset.md.txt",
        f"{module}.py": "dataset.py.txt",
        f"tests/test_{values['function']}.py": "test_dataset.py.txt",
        "tests/sample.jsonl": "sample.jsonl.txt",
    }
    return {path: Template(_text(template)).substitute(values) for path, template in templates.items()}


def _values(name: str) -> dict[str, str]:
    words = name.split("-")
    function = "_".join(words)
    return {
        "name": name,
        "distribution": f"moai-{name}",
        "module": f"moai_{function}",
        "function": f"{function}_" if iskeyword(function) else function,
        "kind": "".join(word.capitalize() for word in words),
    }


def _text(template: str) -> str:
    return files(__name__).joinpath(template).read_text(encoding="utf-8")
