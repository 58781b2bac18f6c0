"""The batches of a stage, epoch by epoch: which samples each step takes, as a function of seed, stage, epoch and step.

Knows: numbers of samples, and what ``Facts`` says of them where it is asked. Nothing is drawn before it is asked for.
"""

from __future__ import annotations

import random
from array import array
from bisect import bisect_right
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np

from moai.errors import RecipeError, nearest
from moai.recipe.stages import Stage
from moai.training.facts import Facts, SampleFacts, text_code
from moai.training.sampling import mix_seed

POOL = 8  # batches that are sorted by length together: little padding, and still a mixture
MIXED_POOL = 64  # batches of whose samples those of similar length come together, where not all lengths are known
YES_NO = {text_code("yes"), text_code("no")}


class StageBatches(Sequence[list[int]]):
    """The samples of each optimisation step of a stage, as indices.

    A stage walks through epochs of fresh shuffles, grouped by length within pools, or, with ``mixed_lengths``, only
    kept apart by a factor of two. ``Stage.sampling_rate_by_type`` says which share of a kind's samples an epoch uses: a
    different share each epoch, so that all are seen in time. The number of steps follows from counts alone, unless the
    stage asks for kinds or balanced answers; lengths are read pool by pool.

    Args:
        seed: of every draw.
        stage: its length, its batches and what an epoch uses.
        number: of the stage among those that teach to answer, from 1; keeps their draws apart.
        facts: of the samples.
        mixed_lengths: as said.
        first_epoch: of the run, before the stage; decides the mixtures by weight.

    Raises:
        RecipeError: an epoch has no samples.
    """

    def __init__(
        self, seed: int, stage: Stage, number: int, facts: Facts, mixed_lengths: bool = False, first_epoch: int = 0
    ) -> None:
        self.seed, self.stage, self.number, self.facts = seed, stage, number, facts
        self.mixed_lengths, self.first_epoch = mixed_lengths, first_epoch
        self._epoch = lru_cache(1)(self._draw_epoch)
        self.ends: list[int] = []  # steps of the stage after each epoch
        while len(self.ends) < stage.epochs if stage.steps is None else (self.ends or [0])[-1] < stage.steps:
            self.ends.append((self.ends or [0])[-1] + self._epoch_steps(len(self.ends)))

    def __len__(self) -> int:
        return self.ends[-1] if self.stage.steps is None else self.stage.steps

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return BatchSlice(self, range(len(self))[index])
        if not 0 <= index < len(self):
            raise IndexError(index)
        epoch = bisect_right(self.ends, index)
        return self._epoch(epoch).batch(index - (self.ends[epoch - 1] if epoch else 0))

    def used(self) -> np.ndarray:
        """Return the samples that some step takes, ``(N,)`` int64, sorted; an epoch may be cut short."""
        found, start = np.zeros(len(self.facts), bool), 0
        for epoch, end in enumerate(self.ends):
            found[self._epoch(epoch).first(min(end, len(self)) - start)] = True
            start = end
        return np.flatnonzero(found)

    def _epoch_steps(self, epoch: int) -> int:
        """Count the steps of an epoch, without a sample where that can be."""
        stage = self.stage
        if self.mixed_lengths and not self.facts.lazy:
            return len(self._epoch(epoch))
        if stage.sampling_rate_by_type or stage.balance_yes_no:
            count = len(self._draw_rows(epoch)[1])
        else:
            count = len(self.facts.epoch_rows(self.first_epoch + epoch)) if epoch == 0 else self._count
        if not count:
            raise RecipeError(f"stages.{stage.name} leaves no samples of an epoch; change what it balances or samples")
        self._count = count
        return -(-count // stage.batch_size)

    def _draw_epoch(self, epoch: int) -> _Epoch | _MixedEpoch:
        rng, places = self._draw_rows(epoch)
        rows = self.facts.epoch_rows(self.first_epoch + epoch)
        rng.shuffle(places)
        order = rows[np.frombuffer(places, np.int64)]
        if self.mixed_lengths and not self.facts.lazy:
            return _MixedEpoch(rng, order, self.facts, self.stage.batch_size)
        return _Epoch(rng, order, self.facts, self.stage.batch_size, self.mixed_lengths)

    def _draw_rows(self, epoch: int) -> tuple[random.Random, array]:
        """Draw which of an epoch's samples it uses, as places among its rows."""
        stage = self.stage
        rng = random.Random(mix_seed(self.seed, epoch, f"order {self.number}"))
        rows = self.facts.epoch_rows(self.first_epoch + epoch)
        if stage.sampling_rate_by_type:
            rates = {text_code(kind): rate for kind, rate in stage.sampling_rate_by_type.items()}
            kinds = self.facts.kind_codes()[rows].tolist()
            used = array("q", (i for i, kind in enumerate(kinds) if rng.random() < rates.get(kind, 1.0)))
        else:
            for _ in range(len(rows)):
                rng.random()  # what is drawn afterwards does not depend on whether kinds have shares
            used = array("q", range(len(rows)))
        if stage.balance_yes_no:
            used = array("q", balanced(rng, used, self.facts.pair_codes()[rows]))
        return rng, used


class BatchSlice(Sequence[list[int]]):
    """View some batches of a stage."""

    def __init__(self, batches: StageBatches, steps: range) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return len(self.steps)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return BatchSlice(self.batches, self.steps[index])
        return self.batches[self.steps[index]]


class _Epoch:
    """Batches of pools that are sorted by length; a pool's lengths are read when it is reached.

    With ``mixed_lengths`` pools are larger, and samples are sorted only as far as none is about twice another.
    """

    def __init__(
        self, rng: random.Random, order: np.ndarray, facts: Facts, batch_size: int, mixed_lengths: bool = False
    ) -> None:
        self.order, self.facts, self.size, self.mixed = order, facts, batch_size, mixed_lengths
        self.pool = batch_size * (MIXED_POOL if mixed_lengths else POOL)
        # The order of a pool's batches is drawn without its lengths, so that any pool is read without those before.
        self.cuts = np.concatenate([_shuffled(rng, n) for n in self._counts()] or [np.empty(0, np.int16)])
        self._sorted = lru_cache(1)(self._sort_pool)

    def _counts(self) -> list[int]:
        return [-(-min(self.pool, len(self.order) - at) // self.size) for at in range(0, len(self.order), self.pool)]

    def __len__(self) -> int:
        return len(self.cuts)

    def batch(self, step: int) -> list[int]:
        """Return the samples of a step of the epoch."""
        rows = self._sorted(step * self.size // self.pool)
        at = int(self.cuts[step]) * self.size
        return rows[at : at + self.size].tolist()

    def first(self, steps: int) -> np.ndarray:
        """Return the samples of the first steps; of a pool that is used in part, the lengths are read."""
        whole = steps * self.size // self.pool if steps < len(self) else -(-len(self.order) // self.pool)
        rest = [row for step in range(whole * self.pool // self.size, steps) for row in self.batch(step)]
        return np.concatenate([self.order[: whole * self.pool], np.array(rest, np.int64)])

    def _sort_pool(self, number: int) -> np.ndarray:
        rows = self.order[number * self.pool : (number + 1) * self.pool]
        lengths = np.maximum(1, self.facts.lengths(rows))
        return rows[np.argsort(_classes(lengths) if self.mixed else lengths, kind="stable")]


class _MixedEpoch:
    """Batches of whatever comes, but no row more than twice as long as another: most padding is gone, no mixture is.

    Questions of one kind tend to be of one length. Sorted by length they come in batches of one kind, and
    each step pulls towards that kind alone.
    """

    def __init__(self, rng: random.Random, order: np.ndarray, facts: Facts, batch_size: int) -> None:
        groups: dict[int, list[int]] = {}
        classes = _classes(np.maximum(1, facts.lengths(order))) if len(order) else order
        for row, group in zip(order.tolist(), classes.tolist(), strict=True):
            groups.setdefault(group, []).append(row)
        self.batches = [g[i : i + batch_size] for g in groups.values() for i in range(0, len(g), batch_size)]
        rng.shuffle(self.batches)

    def __len__(self) -> int:
        return len(self.batches)

    def batch(self, step: int) -> list[int]:
        """Return the samples of a step of the epoch."""
        return self.batches[step]

    def first(self, steps: int) -> np.ndarray:
        """Return the samples of the first steps."""
        return np.array([row for batch in self.batches[:steps] for row in batch], np.int64)


def check_kinds(facts: SampleFacts, stages: Sequence[Stage]) -> None:
    """Refuse shares of kinds of questions that the samples do not have, or that leave nothing to train on.

    Samples are read for it only where a stage has such shares.

    Raises:
        RecipeError: as said.
    """
    for stage in stages:
        rates = stage.sampling_rate_by_type
        if not rates:
            continue
        key, codes = f"stages.{stage.name}.sampling_rate_by_type", np.unique(facts.kind_codes()).tolist()
        for kind in rates:
            if text_code(kind) not in codes:
                raise RecipeError(f"{key}: no sample is of kind '{kind}'{nearest(kind, facts.kind_names())}")
        known = {text_code(kind): rate for kind, rate in rates.items()}
        if all(known.get(code, 1.0) <= 0 for code in codes):
            raise RecipeError(f"{key} leaves no samples; give a kind a rate above 0")


def balanced(rng: random.Random, places: Sequence[int], pairs: np.ndarray) -> list[int]:
    """As many "yes" as "no" for every question text that has both; all other samples stay.

    A data set whose questions mostly say their answer ("is there a red shape?": no, seven times of eight) teaches that
    first, and a model that has learnt it has little left to gain from looking. Of the more frequent answer each call
    draws other samples. After Goyal et al., "Making the V in VQA matter" (arXiv 1612.00837), by sampling alone.

    Args:
        rng: draws.
        places: of the samples.
        pairs: codes of question and answer, ``(N, 2)``, by place.
    """
    groups: dict[int, dict[int, list[int]]] = {}
    for place, (question, answer) in zip(places, pairs[np.asarray(places, np.int64)].tolist(), strict=True):
        groups.setdefault(question, {}).setdefault(answer, []).append(place)
    kept: list[int] = []
    for answers in groups.values():
        if set(answers) == YES_NO:
            least = min(map(len, answers.values()))
            answers = {answer: rng.sample(listed, least) for answer, listed in answers.items()}
        elif set(answers) <= YES_NO:
            continue  # a question with one answer only teaches that answer
        kept += [place for listed in answers.values() for place in listed]
    return sorted(kept)


def _classes(lengths: np.ndarray) -> np.ndarray:
    """Number classes of lengths of which none holds one that is twice another: that of the shortest, and so on."""
    return np.frexp(lengths // lengths.min())[1]


def _shuffled(rng: random.Random, count: int) -> np.ndarray:
    order = list(range(count))
    rng.shuffle(order)
    return np.array(order, np.int16)
