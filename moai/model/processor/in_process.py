"""What a processor holds in this process alone: encoders with their caches, and loaded experts.

Knows: names and keys.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from moai.perception.running.perceiver import Perceiver


class Running:
    """Hold objects of one processor in one process.

    A copied or pickled processor makes its own: engines, threads and caches cannot be copied.
    """

    def __init__(self) -> None:
        self.perceiver: Perceiver | None = None
        self._made: dict[str, tuple[Any, Any]] = {}

    def get(self, name: str, key: Any, make: Any) -> Any:
        """Return the object of this name, made anew when ``key`` has changed."""
        known = self._made.get(name)
        if known is None or known[0] != key:
            known = self._made[name] = (key, make())
        return known[1]

    def __reduce__(self) -> tuple[type[Running], tuple[()]]:
        return Running, ()
