"""Register MM1's connectors, its mixture of experts as a host, the command that makes one, its data and its recipes.

Knows: names. What they name is imported when it is used.
"""

from __future__ import annotations

from pathlib import Path

import moai


@moai.hookimpl
def register_connectors(register):
    """Register attention pooling and the C-Abstractor; average pooling is in the core."""
    register("attention_pooling", _attention_pooling)
    register("c_abstractor", _c_abstractor)


@moai.hookimpl
def register_datasets(register):
    """Register documents of easy-VQA's drawings."""
    register("mm1-documents", _documents)


@moai.hookimpl
def register_commands(register):
    """Register ``moai mm1-upcycle``."""
    register("mm1-upcycle", "moai_mm1.command:upcycle", "Make a dense host a mixture of experts, as MM1 does.")


@moai.hookimpl
def register_hosts(register):
    """Register the Llama with a mixture of experts in every k-th layer."""
    register("mm1_moe_llama", "moai_mm1.host")


@moai.hookimpl
def register_recipes(register):
    """Register the recipes in this package."""
    register(Path(__file__).parent / "recipes")


def _attention_pooling(in_width: int, out_width: int, **options):
    from moai_mm1.connectors import AttentionPooling

    return AttentionPooling(in_width, out_width, **options)


def _c_abstractor(in_width: int, out_width: int, **options):
    from moai_mm1.connectors import CAbstractor

    return CAbstractor(in_width, out_width, **options)


def _documents(split: str, **options):
    from moai_mm1.documents import documents

    return documents(split, **options)
