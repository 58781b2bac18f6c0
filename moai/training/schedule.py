"""Learning rates: how they rise and fall over a stage's steps, and MM1's law of a model's size.

Knows: numbers only. Every factor is a function of the step, so that a resumed run has an uninterrupted one's rates.
"""

from __future__ import annotations

import math

from moai.recipe.stages import Schedule


def rate_factor(schedule: Schedule, step: int, total: int) -> float:
    """Compute the factor on the learning rates at a step.

    Args:
        schedule: the form, the warm-up and the last rate.
        step: from 0.
        total: number of steps that the schedule spans.
    """
    warm = min(1.0, (step + 1) / max(1, schedule.warmup))
    done = min(1.0, step / max(1, total))
    if schedule.kind == "constant":
        return warm
    if schedule.kind == "linear":
        return warm * (1 - (1 - schedule.final_rate) * done)
    cosine = 0.5 * (1 + math.cos(math.pi * done))
    return warm * (schedule.final_rate + (1 - schedule.final_rate) * cosine)


def mm1_rate(parameters: int) -> float:
    """Compute MM1's learning rate for a language model of so many parameters; a tenth of it is its weight decay.

    Source: MM1 (arXiv 2403.09611) section 3.3, fitted on models of 9 M to 1.2 B parameters.
    """
    return math.exp(-0.4214 * math.log(parameters) - 0.5535)
