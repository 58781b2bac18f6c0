"""Count the images for which experts gave nothing, and stop where one of them fails for most.

Knows: perceptions. A run without the words of an expert that was asked for is not that run: training would learn to do
without it, and an evaluation would measure something else.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Sequence

from moai.errors import ExpertError
from moai.types import Perception

log = logging.getLogger("moai")
MOST = 0.5  # the share of images above which an expert's failures end the run
ENOUGH = 8  # images after which the share means something


class FailureCounts:
    """Count images and failures of experts.

    Args:
        fix: ends the sentence that stops a run: what to do about an expert that takes too long or is not needed.
    """

    def __init__(self, fix: str) -> None:
        self.fix, self.images = fix, 0
        self.reasons: dict[str, Counter[str]] = {}  # expert -> reason -> images, the first reason first

    def count(self, perceptions: Sequence[Perception]) -> list[tuple[str, str]]:
        """Count the failures of a batch; return those, expert and reason, that did not happen before.

        Raises:
            ExpertError: an expert failed for more than half of the images so far, where these are at least eight.
        """
        self.images += len(perceptions)
        new: list[tuple[str, str]] = []
        for failure in (failure for perception in perceptions for failure in perception.failures):
            counted = self.reasons.setdefault(failure.expert, Counter())
            if failure.reason not in counted:
                new.append((failure.expert, failure.reason))
            counted[failure.reason] += 1
        if self.images >= ENOUGH:
            self.check()
        return new

    def check(self) -> None:
        """Refuse an expert that failed for more than half of the images.

        Raises:
            ExpertError: with the expert, its number of failures, their first reason and the fix.
        """
        for expert, reasons in self.reasons.items():
            failed = reasons.total()
            if is_most(failed, self.images):
                raise ExpertError(
                    f"expert '{expert}' gave nothing for {failed:,} of {self.images:,} images ({next(iter(reasons))}); "
                    f"{self.fix}"
                )

    def warn(self) -> None:
        """Log how many images each expert gave nothing for, with each reason."""
        for expert, reasons in self.reasons.items():
            for reason, count in reasons.items():
                log.warning("expert '%s' gave nothing for %d of %d images: %s", expert, count, self.images, reason)


def is_most(failed: int, images: int) -> bool:
    """Tell whether failures are more than half of the images."""
    return failed > MOST * images
