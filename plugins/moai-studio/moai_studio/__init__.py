"""Try moai in a browser: the command ``moai studio``.

Knows: a name. What it names is imported when it is used.
"""

from __future__ import annotations

import moai


@moai.hookimpl
def register_commands(register):
    """Register ``moai studio``."""
    register("studio", "moai_studio.command:studio", "Ask about pictures in the browser, and see what answers rest on.")
