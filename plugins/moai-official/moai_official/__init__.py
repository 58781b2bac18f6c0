"""Import the published MoAI checkpoint: its importer, its host, and a recipe with its arithmetic.

Knows: names. What they name is imported when it is used.
"""

from __future__ import annotations

from pathlib import Path

import moai


@moai.hookimpl
def register_commands(register):
    """Register ``moai import-official``."""
    line = "Convert the published MoAI checkpoint into a run folder."
    register("import-official", "moai_official.command:import_official", line)


@moai.hookimpl
def register_hosts(register):
    """Register the Llama with PLoRA."""
    register("moai_plora_llama", "moai_official.host")


@moai.hookimpl
def register_recipes(register):
    """Register the recipes in this package."""
    register(Path(__file__).parent / "recipes")
