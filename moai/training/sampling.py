"""Every random draw of a training run, as a function of the seed and the step.

Knows: nothing of files. Because no draw depends on an earlier one, a resumed run repeats an uninterrupted one exactly.
Source: MoAI (arXiv 2403.07508) section 3.4: step 1 trains one random module per modality, step 2 adds the gates.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence

import torch

from moai.errors import RecipeError, nearest
from moai.recipe.stages import Stage

POOL = 8  # batches that are sorted by length together: little padding, and still a mixture


def draw_modules(seed: int, step: int, mixers: int) -> torch.Tensor:
    """Step 1's draw: for each mixer one of three modules per modality, ``(mixers, 2)``, each equally likely."""
    generator = torch.Generator().manual_seed(_mix(seed, step, "modules"))
    return torch.randint(0, 3, (mixers, 2), generator=generator)


def draw_rows(seed: int, step: int, rows: int, share: float, what: str) -> torch.Tensor:
    """``(rows,)`` bool, each true with probability ``share``; ``what`` keeps different draws apart."""
    generator = torch.Generator().manual_seed(_mix(seed, step, what))
    return torch.rand(rows, generator=generator) < share


def draw_batches(
    seed: int,
    stage: Stage,
    number: int,
    lengths: Sequence[int],
    kinds: Sequence[str],
    pairs: Sequence[tuple[str, str]],
    mixed_lengths: bool = False,
) -> list[list[int]]:
    """Draw the samples of each optimisation step of a stage, as indices.

    A stage walks through epochs of fresh shuffles, grouped by length within pools, or, with ``mixed_lengths``, only
    kept apart by a factor of two. ``Stage.sampling_rate_by_type`` says which share of a kind's samples an epoch uses: a
    different share each epoch, so that all are seen in time.

    Args:
        seed: of every draw.
        stage: its length, its batches and what an epoch uses.
        number: of the stage among those that teach to answer, from 1; keeps their draws apart.
        lengths: number of tokens of each sample.
        kinds: answer type of each sample.
        pairs: ``(question, answer)`` of each sample.
        mixed_lengths: as said.
    """
    drawn: list[list[int]] = []
    epoch = 0
    while epoch < stage.epochs if stage.steps is None else len(drawn) < stage.steps:
        rng = random.Random(_mix(seed, epoch, f"order {number}"))
        used = [i for i, kind in enumerate(kinds) if rng.random() < stage.sampling_rate_by_type.get(kind, 1.0)]
        if stage.balance_yes_no:
            used = balanced(rng, used, pairs)
        cut = _mixed_epoch if mixed_lengths else _epoch
        drawn += cut(rng, used, lengths, stage.batch_size)
        epoch += 1
    return drawn[: stage.steps]


def check_kinds(kinds: Iterable[str], stages: Sequence[Stage]) -> None:
    """Refuse shares of kinds of questions that the samples do not have, or that leave nothing to train on.

    Raises:
        RecipeError: as said.
    """
    known = set(kinds)
    for stage in stages:
        key = f"stages.{stage.name}.sampling_rate_by_type"
        for kind in stage.sampling_rate_by_type:
            if kind not in known:
                raise RecipeError(f"{key}: no sample is of kind '{kind}'{nearest(kind, known)}")
        if all(stage.sampling_rate_by_type.get(kind, 1.0) <= 0 for kind in known):
            raise RecipeError(f"{key} leaves no samples; give a kind a rate above 0")


def draw_questions(seed: int, usable: Sequence[int], stage: Stage) -> list[list[int]]:
    """Draw the samples of each step of a stage of the attention objective, as indices."""
    rng = random.Random(f"{seed}/align")
    return [rng.sample(usable, min(stage.batch_size, len(usable))) for _ in range(stage.steps)]


def balanced(rng: random.Random, indices: list[int], pairs: Sequence[tuple[str, str]]) -> list[int]:
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


def _epoch(rng: random.Random, order: list[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
    rng.shuffle(order)
    batches: list[list[int]] = []
    for start in range(0, len(order), batch_size * POOL):
        pool = sorted(order[start : start + batch_size * POOL], key=lengths.__getitem__)
        cut = [pool[i : i + batch_size] for i in range(0, len(pool), batch_size)]
        rng.shuffle(cut)
        batches += cut
    return batches


def _mixed_epoch(rng: random.Random, order: list[int], lengths: Sequence[int], batch_size: int) -> list[list[int]]:
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


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed torch's own draws, such as dropout, in a step and a process."""
    return _mix(seed, step, f"torch {rank}")


def _mix(seed: int, index: int, what: str) -> int:
    return random.Random(f"{seed}/{index}/{what}").getrandbits(63)
