"""Which auxiliary words answer a question: what the mixers' attention is guided to.

Knows: token ids of questions, answers and words; nothing of the model. A mixer learns where to look only from what an
answer's loss tells it, which is little while it looks everywhere. The words themselves tell more: the answer is said in
one of the facts, mostly in the one that shares most words with the question. After the supervised attention of Liu et
al. (arXiv 1609.04186), with targets found by comparing words instead of labelled ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache

from moai.model.facts import fact_ends
from moai.perception.types import Perception

COMMON = 0.01  # share of all perceptions in which a word must be said to count as one that perceptions use


def guide_for(processor, perceptions: Iterable[Perception], none_token: bool) -> Guide:
    """The guide for what ``processor`` makes of the perceptions of the training data."""
    tokenizer = processor.tokenizer
    spoken = [processor.aux_inputs([[seen]])["aux_input_ids"][0].tolist() for seen in perceptions]
    return Guide(spoken, fact_ends(tokenizer), lambda token: tokenizer.decode([token]), none_token)


class Guide:
    """Finds the words that a question should read.

    Args:
        perceptions: token ids of every verbalized perception of the training data; which words they use is learnt here.
        ends: tokens that end a fact.
        text_of: a token's text; tokens are the same word when they differ in case and white space only, as the first
            word of a text does from the same word further behind.
        none_token: the model has a token that says "none of these".
    """

    def __init__(
        self,
        perceptions: Iterable[Sequence[int]],
        ends: Sequence[int],
        text_of: Callable[[int], str],
        none_token: bool = False,
    ) -> None:
        self.ends, self.none_token = frozenset(ends), none_token
        self._word = lru_cache(None)(lambda token: text_of(token).strip().casefold())
        rows = [set(self._words(token for token in row if token not in self.ends)) for row in perceptions]
        counts = Counter(word for row in rows for word in row)
        self.used = {word for word, count in counts.items() if word and count >= COMMON * len(rows)}

    def targets(self, words: Sequence[int], question: Sequence[int], answer: Sequence[int], said: str) -> list[int]:
        """Positions in ``words`` that the question should read; ``[len(words)]`` for "none of these"; may be empty.

        Args:
            words: token ids of the perception.
            question, answer: token ids; the answer without its end.
            said: the answer as text.

        Returns:
            The answer's words where a fact says them: in the fact that shares most words with the question (in several
            if they share equally many). For "yes" the facts that hold all words of the question that perceptions use,
            and for "no" none of these, but only where there is no such fact; a data set that negates its questions
            ("is no circle present?") thereby gives fewer targets, not false ones.
        """
        facts, asked, wanted = self._facts(words), set(self._words(question)), self._words(answer)
        heard = self._words(words)
        if said.strip().lower() in ("yes", "no"):
            return self._yes_no(heard, facts, asked & self.used, said.strip().lower() == "yes")
        best: list[int] = []
        most = -1
        for fact in facts:
            row = [heard[position] for position in fact]
            starts = [i for i in range(len(row) - len(wanted) + 1) if row[i : i + len(wanted)] == wanted]
            shared = len(asked & (set(row) - set(wanted)))
            if starts and shared >= most:
                found = [fact[start + i] for start in starts for i in range(len(wanted))]
                best = [*(best if shared == most else []), *found]
                most = shared
        return best

    def _yes_no(self, heard: list[str], facts: list[list[int]], asked: set[str], yes: bool) -> list[int]:
        full = [position for fact in facts if asked and asked <= {heard[i] for i in fact} for position in fact]
        if yes:
            return full
        return [len(heard)] if asked and heard and not full and self.none_token else []

    def _words(self, tokens: Iterable[int]) -> list[str]:
        return [self._word(token) for token in tokens]

    def _facts(self, words: Sequence[int]) -> list[list[int]]:
        facts: list[list[int]] = [[]]
        for position, token in enumerate(words):
            if token in self.ends:
                facts.append([])
            else:
                facts[-1].append(position)
        return [fact for fact in facts if fact]
