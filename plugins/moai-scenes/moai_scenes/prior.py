"""Score what the words of a question give away: the answers of one who has learnt the questions and gets no image.

Knows: samples of any data set. It is the floor that a share of right answers has to be read against.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from moai.types import Sample


def question_prior(train: Iterable[Sample], asked: Sequence[Sample]) -> dict[str, float]:
    """Answer each question with the commonest answer that its text has in ``train``.

    A text that ``train`` does not hold gets the commonest answer of its kind. Equal counts go to the answer that comes
    first in the alphabet.

    Returns:
        kind -> share of ``asked`` that is answered right, in [0, 1].
    """
    by_text: dict[str, Counter] = defaultdict(Counter)
    by_kind: dict[str, Counter] = defaultdict(Counter)
    for sample in train:
        by_text[sample.question][sample.answer] += 1
        by_kind[sample.kind][sample.answer] += 1
    right: Counter = Counter()
    for sample in asked:
        known = by_text.get(sample.question) or by_kind.get(sample.kind) or Counter()
        right[sample.kind] += _commonest(known) == sample.answer
    total = Counter(sample.kind for sample in asked)
    return {kind: right[kind] / total[kind] for kind in sorted(total)}


def _commonest(answers: Counter) -> str | None:
    return min(answers, key=lambda answer: (-answers[answer], answer)) if answers else None
