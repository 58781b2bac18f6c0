"""Register our classes with ``AutoModelForImageTextToText`` and its kin, without importing transformers.

Knows: which module of ours registers itself with which module of transformers. A finder on ``sys.meta_path`` waits
for the latter and imports the former right after it, so ``import moai`` stays light and either import order works.
"""

from __future__ import annotations

import importlib
import sys
from typing import Any

REGISTRARS = {
    "transformers.models.auto.configuration_auto": "moai.model.config",
    "transformers.models.auto.modeling_auto": "moai.model.modeling",
    "transformers.models.auto.processing_auto": "moai.model.processor.processor",
}


def register_with_transformers(registrars: dict[str, str] = REGISTRARS) -> None:
    """Import each registrar as soon as its module of transformers is loaded, or now when it is already."""
    waiting = {}
    for watched, registrar in registrars.items():
        if watched in sys.modules:
            _register(registrar)
        else:
            waiting[watched] = registrar
    if waiting:
        sys.meta_path.insert(0, _PostImportFinder(waiting))


def _register(registrar: str) -> None:
    # Our modeling imports transformers, which fires the hook while that module is half made: it registers itself at
    # its end, so a module that is loaded or being loaded needs nothing from us.
    if registrar in sys.modules:
        return
    try:
        importlib.import_module(registrar)
    except Exception as error:  # a program that imports transformers for another model must not fail by our defect
        import warnings

        message = f"moai: {registrar} could not be registered with transformers: {type(error).__name__}: {error}"
        warnings.warn(message, RuntimeWarning, stacklevel=2)


class _PostImportFinder:
    """Find the watched modules as the other finders do, and have their loader call us when it is done."""

    def __init__(self, waiting: dict[str, str]) -> None:
        self.waiting = waiting

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        """Return the watched module's own spec with our loader around its loader; ``None`` for any other module."""
        if name not in self.waiting:
            return None
        # Only the finders after this one: two of our kind that asked each other would never end.
        for finder in sys.meta_path[sys.meta_path.index(self) + 1 :]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if spec.loader is not None:
                    spec.loader = _Notifying(spec.loader, self, name)
                return spec
        return None

    def loaded(self, name: str) -> None:
        registrar = self.waiting.pop(name, None)
        if not self.waiting and self in sys.meta_path:
            sys.meta_path.remove(self)
        if registrar is not None:
            _register(registrar)


class _Notifying:
    """Load a module with its own loader, give that loader back to it, and notify the finder."""

    def __init__(self, inner: Any, finder: _PostImportFinder, name: str) -> None:
        self.inner, self.finder, self.name = inner, finder, name

    def __getattr__(self, attribute: str) -> Any:
        return getattr(self.inner, attribute)  # get_source, is_package, ... for tools that inspect the spec

    def create_module(self, spec: Any) -> Any:
        return self.inner.create_module(spec)

    def exec_module(self, module: Any) -> None:
        module.__loader__ = module.__spec__.loader = self.inner
        self.inner.exec_module(module)
        self.finder.loaded(self.name)
