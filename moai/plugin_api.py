"""The names that plugins may import beside those of ``moai``, ``moai.types``, ``moai.errors`` and ``moai.testing``.

Knows: where each is defined. They resolve on first use (PEP 562), so that a plugin registers without torch. The page
docs/plugins.md lists them, and a test keeps our own plugins to that list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from moai.assets.cache import cache_dir, publish, status
    from moai.assets.replacing import replacing
    from moai.assets.resolver import resolve
    from moai.compat import CACHE, takes_cache
    from moai.data.records import Records
    from moai.data.row_index import Place
    from moai.data.samples import LazySamples
    from moai.data.source import Source
    from moai.data.turns import split_at
    from moai.evaluation.conditions import derange
    from moai.images import image_key
    from moai.model.host.loading import host_hashes
    from moai.model.processor.chat_templates import chat_template
    from moai.model.run_folder import save_adapters
    from moai.perception.running.weights import identify
    from moai.perception.words.formatting import clean_label
    from moai.perception.words.reading_order import reading_order
    from moai.plugins import registry

_HOMES = {
    "CACHE": "moai.compat",
    "LazySamples": "moai.data.samples",
    "Place": "moai.data.row_index",
    "Records": "moai.data.records",
    "Source": "moai.data.source",
    "cache_dir": "moai.assets.cache",
    "chat_template": "moai.model.processor.chat_templates",
    "clean_label": "moai.perception.words.formatting",
    "derange": "moai.evaluation.conditions",
    "host_hashes": "moai.model.host.loading",
    "identify": "moai.perception.running.weights",
    "image_key": "moai.images",
    "publish": "moai.assets.cache",
    "reading_order": "moai.perception.words.reading_order",
    "registry": "moai.plugins",
    "replacing": "moai.assets.replacing",
    "resolve": "moai.assets.resolver",
    "save_adapters": "moai.model.run_folder",
    "split_at": "moai.data.turns",
    "status": "moai.assets.cache",
    "takes_cache": "moai.compat",
}

__all__ = [
    "CACHE",
    "LazySamples",
    "Place",
    "Records",
    "Source",
    "cache_dir",
    "chat_template",
    "clean_label",
    "derange",
    "host_hashes",
    "identify",
    "image_key",
    "publish",
    "reading_order",
    "registry",
    "replacing",
    "resolve",
    "save_adapters",
    "split_at",
    "status",
    "takes_cache",
]


if not TYPE_CHECKING:  # a type checker would take every name for a public one

    def __getattr__(name: str) -> object:
        if name not in _HOMES:
            raise AttributeError(f"module 'moai.plugin_api' has no attribute '{name}'")
        import importlib

        value = getattr(importlib.import_module(_HOMES[name]), name)
        globals()[name] = value  # the next use does not come here
        return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(_HOMES))
