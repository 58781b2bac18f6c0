"""Resolve a module's public names on first use (PEP 562).

Knows: modules and names; it imports nothing of moai itself, so that ``import moai`` loads no torch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping


def lazy_names(module: str, homes: Mapping[str, str]) -> tuple[Callable[[str], object], Callable[[], list[str]]]:
    """Make a module's ``__getattr__`` and ``__dir__`` from the modules that define its names.

    Args:
        module: the ``__name__`` of the module that offers the names.
        homes: name -> the module that defines it.

    Returns:
        ``__getattr__``, which imports the defining module and raises AttributeError for a name that ``homes`` lacks;
        and ``__dir__``, which lists these names and what the module holds already.
    """

    def resolve(name: str) -> object:
        if name not in homes:
            raise AttributeError(f"module '{module}' has no attribute '{name}'")
        import importlib  # here, so that `import moai` does not pay for it

        value = getattr(importlib.import_module(homes[name]), name)
        setattr(sys.modules[module], name, value)  # the next use does not come here
        return value

    def names() -> list[str]:
        return sorted({*vars(sys.modules[module]), *homes})

    return resolve, names
