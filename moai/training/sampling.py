"""Every random draw of a training run, as a function of the seed and the step.

Knows: nothing of files. Because no draw depends on an earlier one, a resumed run repeats an uninterrupted one exactly.
Source: MoAI (arXiv 2403.07508) section 3.4: step 1 trains one random module per modality, step 2 adds the gates.
"""

from __future__ import annotations

import random
from collections.abc import Sequence

import torch

from moai.recipe.stages import Stage


def draw_modules(seed: int, step: int, mixers: int, images: bool = True) -> torch.Tensor:
    """Step 1's draw: for each mixer one of three modules per modality, ``(mixers, 2)``, each equally likely.

    Where ``images`` have no tokens, it is one of the language stream's two, and the first column means nothing.
    """
    generator = torch.Generator().manual_seed(mix_seed(seed, step, "modules"))
    return torch.randint(0, 3 if images else 2, (mixers, 2), generator=generator)


def draw_rows(seed: int, step: int, rows: int, share: float, what: str) -> torch.Tensor:
    """``(rows,)`` bool, each true with probability ``share``; ``what`` keeps different draws apart."""
    generator = torch.Generator().manual_seed(mix_seed(seed, step, what))
    return torch.rand(rows, generator=generator) < share


def draw_samples(seed: int, stage: Stage, count: int) -> list[int]:
    """Draw the samples of a stage that names their number, ``stage.samples`` of ``count``, as sorted indices."""
    return sorted(random.Random(f"{seed}/{stage.name}/samples").sample(range(count), min(stage.samples or 0, count)))


def draw_questions(seed: int, usable: Sequence[int], stage: Stage) -> list[list[int]]:
    """Draw the samples of each step of a stage of the attention objective, as indices."""
    rng = random.Random(f"{seed}/align")
    return [rng.sample(usable, min(stage.batch_size, len(usable))) for _ in range(stage.steps)]


def step_seed(seed: int, step: int, rank: int) -> int:
    """Seed torch's own draws, such as dropout, in a step and a process."""
    return mix_seed(seed, step, f"torch {rank}")


def mix_seed(seed: int, index: int, what: str) -> int:
    """Make a seed of a run's seed, a step or an epoch, and what is drawn there."""
    return random.Random(f"{seed}/{index}/{what}").getrandbits(63)
