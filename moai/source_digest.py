"""Digest the source of an expert that is being written, so that what its last version found is not taken for its own.

Knows: modules and their files. What is installed as a copy changes only with its version; a file elsewhere (an editable
installation, a script, a test) and a class typed into a notebook change at any time.
"""

from __future__ import annotations

import functools
import hashlib
import sys
import types
from collections.abc import Iterator
from pathlib import Path

_INSTALLED = {"site-packages", "dist-packages"}  # folders of what pip has copied


def source_digest(kind: type) -> str:
    """Digest the source of a class, as it is when the class is made.

    Returns:
        A SHA-256 in hex over the class's module file, or over all Python files in the folder of its package. Where the
        module has no file, over the compiled methods. Empty for what is installed as a copy.
    """
    module = sys.modules.get(kind.__module__)
    name = getattr(module, "__file__", None)
    path = Path(name) if name else None
    if path is None or not path.is_file():
        return _digest_code(kind)
    if _INSTALLED.intersection(path.parts):
        return ""
    packaged = "." in kind.__module__ or path.name == "__init__.py"
    files = sorted(path.parent.rglob("*.py")) if packaged else [path]
    return _digest_files(tuple((file, file.stat().st_mtime_ns, file.stat().st_size) for file in files))


@functools.lru_cache(maxsize=64)
def _digest_files(files: tuple[tuple[Path, int, int], ...]) -> str:
    """Digest files by their contents; times and sizes only say whether they have to be read again."""
    digest = hashlib.sha256()
    for path, _, _ in files:
        digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def _digest_code(kind: type) -> str:
    digest = hashlib.sha256()
    for name, value in sorted(vars(kind).items()):
        code = getattr(getattr(value, "__func__", value), "__code__", None)
        for part in _parts(code) if code is not None else ():
            digest.update(f"{name} {part}\n".encode("utf-8", "backslashreplace"))
    return digest.hexdigest()


def _parts(code: types.CodeType) -> Iterator[str]:
    yield f"{code.co_code.hex()} {code.co_names} {code.co_varnames}"
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            yield from _parts(constant)
        else:
            yield repr(constant)
