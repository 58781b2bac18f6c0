"""Run public benchmarks through an evaluation harness: the adapter for lmms-eval.

Knows: how lmms-eval finds models. The entry point ``lmms_eval.models`` names ``manifest``; everything else is imported
when a benchmark starts. ``prompts``, ``decoding``, ``perceiving`` and ``engine`` do not need lmms-eval.
"""

from __future__ import annotations


def manifest():
    """Describe the model ``moai`` to lmms-eval: one class for text with images, one for conversations."""
    from lmms_eval.models.registry_v2 import ModelManifest

    return ModelManifest(
        "moai", simple_class_path="moai_lmms_eval.lmms.MoaiSimple", chat_class_path="moai_lmms_eval.lmms.MoaiChat"
    )
