"""Score short answers, with intervals and tests.

Knows: strings and numpy arrays; nothing of models or images. Questions about one image are not independent, so every
interval here can resample whole images (``groups``) instead of single questions.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Hashable, Sequence

import numpy as np

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_PUNCTUATION = re.compile(r"(?<!\d)[^\w\s]|[^\w\s](?!\d)|_")  # not removed between digits: "3.5" is not "3 5"
_CHUNK = 100  # resamples drawn at once, which bounds the memory
_Z95 = 1.959964


def normalize(text: str) -> str:
    """Normalize an answer: lower case, no punctuation except inside numbers, no English articles, single spaces."""
    text = unicodedata.normalize("NFKC", text).casefold()
    text = _PUNCTUATION.sub(" ", text)
    return " ".join(_ARTICLES.sub(" ", text).split())


def exact_match(prediction: str, answers: str | Sequence[str]) -> bool:
    """Return whether a prediction equals one of the answers after ``normalize``.

    An answer of articles or signs alone is compared as it is.
    """
    given = normalize(prediction)
    for answer in [answers] if isinstance(answers, str) else answers:
        wanted = normalize(answer)
        if given == wanted if wanted else prediction.strip() == answer.strip():
            return True
    return False


def bootstrap_interval(
    values: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 2000,
    level: float = 0.95,
) -> tuple[float, float]:
    """Compute the percentile bootstrap interval of the mean of ``values``.

    Args:
        values: ``(N,)`` numbers.
        groups: ``(N,)`` names; values with one name (questions about one image) are drawn together. Without it every
            value is drawn by itself.
        seed: of the resampling; equal input gives equal intervals.
        resamples: how many times the groups are drawn with replacement.
        level: share of the resampled means inside the interval.

    Raises:
        ValueError: no values, or ``groups`` of another length.
    """
    sums, counts = _by_group(values, groups)
    rng = np.random.default_rng(seed)
    means = []
    for start in range(0, resamples, _CHUNK):
        size = (min(_CHUNK, resamples - start), len(sums))
        drawn = rng.integers(0, len(sums), size=size)  # (resamples, groups)
        means.append(sums[drawn].sum(axis=1) / counts[drawn].sum(axis=1))
    tail = (1 - level) / 2
    low, high = np.quantile(np.concatenate(means), [tail, 1 - tail])
    return float(low), float(high)


def accuracy_interval(
    right: Sequence[bool] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float]:
    """Compute the 95 % interval of an accuracy: bootstrap, or Wilson over the groups when all answers are alike.

    Resampling from answers that are all right (or all wrong) can only give an interval of width zero, which would
    claim more than a finite sample can show.
    """
    values = np.asarray(right, dtype=float)
    if values.size and values.min() == values.max():
        return _wilson(float(values[0]), len(_by_group(values, groups)[0]))
    return bootstrap_interval(values, groups=groups, seed=seed, resamples=resamples)


def paired_difference(
    a: Sequence[float] | np.ndarray,
    b: Sequence[float] | np.ndarray,
    *,
    groups: Sequence[Hashable] | None = None,
    seed: int = 0,
    resamples: int = 2000,
) -> tuple[float, float, float]:
    """Return ``(mean of a - b, low, high)`` for scores of the same questions in the same order.

    Raises:
        ValueError: no values, or different lengths.
    """
    first, second = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if first.shape != second.shape:
        raise ValueError(f"paired scores need the same length, not {len(first)} and {len(second)}")
    difference = first - second
    low, high = bootstrap_interval(difference, groups=groups, seed=seed, resamples=resamples)
    return float(difference.mean()), low, high


def mcnemar(a: Sequence[bool] | np.ndarray, b: Sequence[bool] | np.ndarray) -> tuple[int, int, float]:
    """Compute McNemar's exact test of two conditions on the same questions.

    Returns:
        ``(only_a, only_b, p)``: questions that only a, or only b, answered right, and the two-sided binomial p value.
        The test takes questions as independent; where several share an image, the interval of the difference, which
        resamples images, is the more careful statement.

    Raises:
        ValueError: different lengths.
    """
    from scipy.stats import binomtest  # here, since importing scipy.stats takes a second

    first, second = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if first.shape != second.shape:
        raise ValueError(f"paired scores need the same length, not {len(first)} and {len(second)}")
    only_a, only_b = int((first & ~second).sum()), int((~first & second).sum())
    if only_a + only_b == 0:
        return 0, 0, 1.0
    return only_a, only_b, float(binomtest(only_a, only_a + only_b).pvalue)


def _by_group(values: Sequence[float] | np.ndarray, groups: Sequence[Hashable] | None) -> tuple[np.ndarray, np.ndarray]:
    numbers = np.asarray(values, dtype=float)
    if numbers.size == 0:
        raise ValueError("an interval needs at least one value")
    if groups is None:
        return numbers, np.ones_like(numbers)
    if len(groups) != len(numbers):
        raise ValueError(f"{len(numbers)} values need as many groups, not {len(groups)}")
    order: dict[Hashable, int] = {}
    index = np.array([order.setdefault(group, len(order)) for group in groups])
    return np.bincount(index, weights=numbers), np.bincount(index).astype(float)


def _wilson(share: float, n: int) -> tuple[float, float]:
    # Wilson's score interval at a share of exactly 0 or 1
    edge = n / (n + _Z95**2)
    return (edge, 1.0) if share else (0.0, 1 - edge)
