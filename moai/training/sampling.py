"""What trains when, and every random draw of a training run as a function of (seed, step).

Knows: nothing of files. Because no draw depends on an earlier one, a resumed run repeats an uninterrupted one exactly.
Source: MoAI (arXiv 2403.07508) section 3.4: step 1 trains one random module per modality, step 2 adds the gates.
"""

from __future__ import annotations

import math
import random

import torch
from torch import nn

from moai.recipe.sections import Step, Training

POOL = 8  # batches that are sorted by length together: little padding, and still a mixture


def step_at(training: Training, step: int) -> Step:
    """The training step that optimisation step ``step`` (from 0) belongs to."""
    return training.step1 if step < training.step1.steps else training.step2


def total_steps(training: Training) -> int:
    """Optimisation steps of both training steps together."""
    return training.step1.steps + training.step2.steps


def draw_modules(seed: int, step: int, mixers: int) -> torch.Tensor:
    """Step 1's draw: for each mixer one of three modules per modality, ``(mixers, 2)``, each equally likely."""
    generator = torch.Generator().manual_seed(_mix(seed, step, "modules"))
    return torch.randint(0, 3, (mixers, 2), generator=generator)


def draw_rows(seed: int, step: int, rows: int, share: float, what: str) -> torch.Tensor:
    """``(rows,)`` bool, each true with probability ``share``; ``what`` keeps different draws apart."""
    generator = torch.Generator().manual_seed(_mix(seed, step, what))
    return torch.rand(rows, generator=generator) < share


def draw_batches(
    seed: int, lengths: list[int], kinds: list[str], training: Training, pairs: list[tuple[str, str]] | None = None
) -> list[list[int]]:
    """Indices of the samples of each optimisation step.

    Both training steps walk through epochs of fresh shuffles, grouped by length within pools, or, with
    ``mixed_lengths``, only kept apart by a factor of two. ``Step.sampling_rate_by_type`` says which share of a kind's
    samples an epoch uses. A different share each epoch, so that all are seen in time.

    Args:
        seed: of every draw.
        lengths: number of tokens of each sample.
        kinds: answer type of each sample.
        training: the plan.
        pairs: ``(question, answer)`` of each sample; needed where a step asks for ``balance_yes_no``.
    """
    batches: list[list[int]] = []
    for number, part in enumerate((training.step1, training.step2), 1):
        drawn: list[list[int]] = []
        epoch = 0
        while len(drawn) < part.steps:
            rng = random.Random(_mix(seed, epoch, f"order {number}"))
            used = [i for i, kind in enumerate(kinds) if rng.random() < part.sampling_rate_by_type.get(kind, 1.0)]
            if part.balance_yes_no:
                used = balanced(rng, used, pairs)
            cut = _mixed_epoch if training.mixed_lengths else _epoch
            drawn += cut(rng, used, lengths, training.batch_size)
            epoch += 1
        batches += drawn[: part.steps]
    return batches


def balanced(rng: random.Random, indices: list[int], pairs: list[tuple[str, str]]) -> list[int]:
    """As many "yes" as "no" for every question text that has both; all other samples stay.

    A data set whose questions mostly say their answer ("is there a red shape?": no, seven times of eight) teaches that
    first, and a model that has learnt it has little left to gain from looking. Of the more frequent answer each call
    draws other samples. After Goyal et al., "Making the V in VQA matter" (arXiv 1612.00837), by sampling alone.
    """
    groups: dict[str, dict[str, list[int]]] = {}
    for index in indices:
        question, answer = pairs[index]
        groups.setdefault(question, {}).setdefault(answer, []).append(index)
    kept: list[int] = []
    for answers in groups.values():
        if set(answers) == {"yes", "no"}:
            least = min(map(len, answers.values()))
            answers = {answer: rng.sample(listed, least) for answer, listed in answers.items()}
        elif set(answers) <= {"yes", "no"}:
            continue  # a question with one answer only teaches that answer
        kept += [index for listed in answers.values() for index in listed]
    return sorted(kept)


def _epoch(rng: random.Random, order: list[int], lengths: list[int], batch_size: int) -> list[list[int]]:
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * POOL):
        pool = sorted(order[start : start + batch_size * POOL], key=lengths.__getitem__)
        cut = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def _mixed_epoch(rng: random.Random, order: list[int], lengths: list[int], batch_size: int) -> list[list[int]]:
    """Batches of whatever comes, but no row more than twice as long as another: most padding is gone, no mixture is.

    Questions of one kind tend to be of one length. Sorted by length they come in batches of one kind, and
    each step pulls towards that kind alone.
    """
    rng.shuffle(order)
    shortest = max(1, min((lengths[index] for index in order), default=1))
    groups: dict[int, list[int]] = {}
    for index in order:
        groups.setdefault((max(1, lengths[index]) // shortest).bit_length(), []).append(index)
    batches = [group[i : i + batch_size] for group in groups.values() for i in range(0, len(group), batch_size)]
    rng.shuffle(batches)
    return batches


def rate_at(training: Training, step: int) -> float:
    """Factor on the learning rates: linear warm-up, then a cosine to ``final_rate``."""
    warm = min(1.0, (step + 1) / max(1, training.warmup))
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, step / max(1, total_steps(training)))))
    return warm * (training.final_rate + (1 - training.final_rate) * cosine)


def parameter_groups(model: nn.Module, training: Training) -> list[dict]:
    """The adapters in two groups: the compressor learns more slowly, or it turns into a constant soft prompt."""
    parts = model.adapters()
    fast = [p for name, part in parts.items() if name != "compressor" for p in part.parameters()]
    return [
        {"params": fast, "lr": training.learning_rate, "base": training.learning_rate},
        {
            "params": list(parts["compressor"].parameters()),
            "lr": training.learning_rate * training.compressor_rate,
            "base": training.learning_rate * training.compressor_rate,
        },
    ]


def _mix(seed: int, index: int, what: str) -> int:
    return random.Random(f"{seed}/{index}/{what}").getrandbits(63)
