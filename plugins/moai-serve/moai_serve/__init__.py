"""Serve runs of moai to programs, by OpenAI's chat API.

Knows: the name of the command, and where the application is. Registration imports no web framework and no torch.
"""

from __future__ import annotations

import moai


@moai.hookimpl
def register_commands(register):
    """Register ``moai serve``."""
    register("serve", "moai_serve.command:serve", "Serve a run to programs, by OpenAI's chat API.")
