"""Where each stage of a run begins and ends, and which samples its steps take.

Knows: the recipe's stages and the draws of ``epochs``; nothing of files or of the model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from moai.recipe.stages import Stage, Training
from moai.training.epochs import StageBatches
from moai.training.facts import Facts
from moai.training.sampling import draw_samples


@dataclass
class StagePlan:
    """One stage in its run; all numbers count optimisation steps.

    Attributes:
        stage: of the recipe.
        first: of the run, before the stage.
        steps: of the stage.
        first_draw: of the run's stages that teach to answer, before this one.
        schedule_step, schedule_steps: where in its schedule the stage begins, and how long that is: with
            ``continues``, a schedule spans several stages.
        batches: samples of each step, as indices; None for the attention objective, whose samples are known later.
    """

    stage: Stage
    first: int
    steps: int
    first_draw: int = 0
    schedule_step: int = 0
    schedule_steps: int = 0
    batches: StageBatches | None = None


def plan_stages(stages: Sequence[Stage], training: Training, seed: int, facts: Facts) -> list[StagePlan]:
    """Plan the stages of a run.

    Args:
        stages, training, seed: of the recipe.
        facts: of the samples.
    """
    plans: list[StagePlan] = []
    first = draws = number = epochs = 0
    for stage in stages:
        plan = StagePlan(stage, first, stage.steps or 0, draws)
        if stage.objective == "answers":
            number += 1
            plan.batches = StageBatches(seed, stage, number, facts, training.mixed_lengths, epochs)
            plan.steps = len(plan.batches)
            draws += plan.steps
            epochs += len(plan.batches.ends)
        plans.append(plan)
        first += plan.steps
    for group in _continued(plans):
        total, at = sum(plan.steps for plan in group), 0
        for plan in group:
            plan.schedule_step, plan.schedule_steps = at, total
            at += plan.steps
    return plans


def used_samples(plans: Sequence[StagePlan], seed: int, count: int) -> list[int]:
    """List the samples that some stage uses, as sorted indices.

    Args:
        plans: of all stages.
        seed: of the recipe.
        count: of all samples.
    """
    named = [aligned_samples(plan, plans, seed, count) for plan in plans if plan.stage.samples is not None]
    return sorted({*_answered(plans, count), *(index for indices in named for index in indices)})


def aligned_samples(plan: StagePlan, plans: Sequence[StagePlan], seed: int, count: int) -> list[int]:
    """List the samples that a stage of the attention objective draws from, as sorted indices.

    They are as many as it names, drawn at random, or else those that some stage teaches to answer.

    Args:
        plan: of the stage.
        plans, seed, count: as for :func:`used_samples`.
    """
    return _answered(plans, count) if plan.stage.samples is None else draw_samples(seed, plan.stage, count)


def _answered(plans: Sequence[StagePlan], count: int) -> list[int]:
    """The samples that some step teaches to answer; all of them where no stage does."""
    taken = [plan.batches.used() for plan in plans if plan.batches is not None]
    return np.unique(np.concatenate(taken)).tolist() if taken else list(range(count))


def _continued(plans: Sequence[StagePlan]) -> list[list[StagePlan]]:
    """Group the plans that share a schedule."""
    groups: list[list[StagePlan]] = []
    for plan in plans:
        if plan.stage.continues:
            groups[-1].append(plan)
        else:
            groups.append([plan])
    return groups
