"""Offer plugins the names beside those of ``moai``, ``moai.types``, ``moai.errors`` and ``moai.testing``.

Knows: the module that defines each name. A name is imported on first use, so that a plugin registers without torch.
The page docs/plugins.md lists them, and a test keeps our own plugins to that list.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from moai.lazy_names import lazy_names

if TYPE_CHECKING:
    from moai.assets.cache import cache_dir, publish, status
    from moai.assets.host import resolve_host
    from moai.assets.replacing import replacing
    from moai.assets.resolver import resolve
    from moai.compat import CACHE, has_values, takes_cache
    from moai.data.records import Records
    from moai.data.row_index import Place
    from moai.data.samples import LazySamples
    from moai.data.source import Source
    from moai.data.turns import split_at
    from moai.evaluation.conditions import derange
    from moai.images import image_key, image_origin
    from moai.model.host.loading import host_hashes
    from moai.model.likelihood import Score, score_answers
    from moai.model.processor.chat_templates import chat_template
    from moai.model.run_folder import save_adapters
    from moai.perception.cache.store import default_store
    from moai.perception.running.settings import installed_experts
    from moai.perception.running.watch import Watch
    from moai.perception.running.weights import identify
    from moai.perception.words.formatting import clean_label
    from moai.perception.words.reading_order import reading_order
    from moai.perception.words.token_budget import facts_of
    from moai.plugins import registry
    from moai.training.card import run_facts
    from moai.training.log import read_log

_HOMES = {
    "CACHE": "moai.compat",
    "LazySamples": "moai.data.samples",
    "Place": "moai.data.row_index",
    "Records": "moai.data.records",
    "Score": "moai.model.likelihood",
    "Source": "moai.data.source",
    "Watch": "moai.perception.running.watch",
    "cache_dir": "moai.assets.cache",
    "chat_template": "moai.model.processor.chat_templates",
    "clean_label": "moai.perception.words.formatting",
    "default_store": "moai.perception.cache.store",
    "derange": "moai.evaluation.conditions",
    "facts_of": "moai.perception.words.token_budget",
    "has_values": "moai.compat",
    "host_hashes": "moai.model.host.loading",
    "identify": "moai.perception.running.weights",
    "image_key": "moai.images",
    "image_origin": "moai.images",
    "installed_experts": "moai.perception.running.settings",
    "publish": "moai.assets.cache",
    "read_log": "moai.training.log",
    "reading_order": "moai.perception.words.reading_order",
    "registry": "moai.plugins",
    "replacing": "moai.assets.replacing",
    "resolve": "moai.assets.resolver",
    "resolve_host": "moai.assets.host",
    "run_facts": "moai.training.card",
    "save_adapters": "moai.model.run_folder",
    "score_answers": "moai.model.likelihood",
    "split_at": "moai.data.turns",
    "status": "moai.assets.cache",
    "takes_cache": "moai.compat",
}

__all__ = [
    "CACHE",
    "LazySamples",
    "Place",
    "Records",
    "Score",
    "Source",
    "Watch",
    "cache_dir",
    "chat_template",
    "clean_label",
    "default_store",
    "derange",
    "facts_of",
    "has_values",
    "host_hashes",
    "identify",
    "image_key",
    "image_origin",
    "installed_experts",
    "publish",
    "read_log",
    "reading_order",
    "registry",
    "replacing",
    "resolve",
    "resolve_host",
    "run_facts",
    "save_adapters",
    "score_answers",
    "split_at",
    "status",
    "takes_cache",
]

if not TYPE_CHECKING:  # a type checker would take every name for a public one
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
