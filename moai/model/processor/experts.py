"""Build the perceiver of a run: its experts with their options and time limit.

Knows: the processor's settings and the perceiver.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moai.expert import Expert
from moai.perception.cache.store import Store
from moai.perception.running.perceiver import Perceiver

if TYPE_CHECKING:
    from moai.model.processor.processor import MoaiProcessor


def build_perceiver(processor: MoaiProcessor, experts: Sequence[str | Expert], store: Store | None = None) -> Perceiver:
    """Build a perceiver of experts, with the options and the time limit of the processor's run.

    Args:
        processor: of the run.
        experts: names of the run's experts or of others, or experts that are built.
        store: where perceptions are cached; None caches nothing.

    Raises:
        ExpertError: an unknown expert or option.
    """
    named = [expert for expert in experts if isinstance(expert, str)]
    options = {name: given for name, given in processor.expert_options.items() if name in named}
    return Perceiver(experts, options=options, store=store, time_limit=processor.time_limit)
