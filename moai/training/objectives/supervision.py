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

from moai.model.encoders.facts import fact_ends
from moai.types import Perception

COMMON = 0.01  # share of all perceptions in which a word must be said to count as one that perceptions use
ALWAYS = 0.9  # share of all perceptions from which on a fact is not about an image, but how a perception begins


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
        perceptions = list(perceptions)
        rows = [{self._word(token) for token in row if token not in self.ends} for row in perceptions]
        counts = Counter(word for row in rows for word in row)
        self.used = {word for word, count in counts.items() if word and count >= COMMON * len(rows)}
        said = Counter(fact for row in perceptions for fact in {self._said(row, f) for f in self._facts(row)})
        self.always = {fact for fact, count in said.items() if count >= ALWAYS * len(rows)}

    def targets(
        self, words: Sequence[int], question: Sequence[int], answer: Sequence[int], said: str
    ) -> list[list[int]]:
        """Groups of positions in ``words``: of each group the question should read at least one; may be empty.

        "None of these" is the position ``len(words)``.

        A phrase of the question is a run of words that perceptions use: "red circle" in "where is the red circle?". A
        fact holds it where it has the same words in a row.

        Args:
            words: token ids of the perception.
            question, answer: token ids; the answer without its end.
            said: the answer as text.

        Returns:
            One group for each of the answer's words, where a fact says them: in the fact that holds most words of the
            question's phrases, less the words it says besides, and in any other that fits as well. A fact that holds
            fewer of them than another is about something else. One group for a question of yes or no: its phrases, in
            the facts that hold all of them. The none token for a question of either sort of whose words no fact holds
            all. None of this asks whether the answer is yes or no, so a negated question ("is no circle present?") is
            told to look where its opposite looks. Only where facts hold all words but not as the question puts them
            ("is the circle red?", "red circle") the answer decides.
        """
        facts, phrases = self._facts(words), self._phrases(question)
        heard, asked = self._words(words), {word for phrase in phrases for word in phrase}
        reply = said.strip().lower()
        yes_no = reply in ("yes", "no")
        full = [fact for fact in facts if asked and asked <= {heard[i] for i in fact}]
        if yes_no:
            held = [_places(phrases, [heard[i] for i in fact]) for fact in full]
            found = [fact[i] for fact, places in zip(full, held, strict=True) if places for i in places]
            if not found and reply == "yes":
                found = [i for fact in full for i in fact if heard[i] in asked]
            found = [found] if found else []
        else:
            found = self._answering(heard, facts, phrases, self._words(answer))
        none = self.none_token and asked and heard and not found and (yes_no or not full)
        return [[len(heard)]] if none else found

    def _answering(
        self, heard: list[str], facts: list[list[int]], phrases: list[list[str]], wanted: list[str]
    ) -> list[list[int]]:
        """Where each of the answer's words stands in the facts that fit the question best."""
        rows = [[heard[position] for position in fact] for fact in facts]
        held = [sum(len(phrase) for phrase in phrases if _starts(phrase, row)) for row in rows]
        about = [count for row, count in zip(rows, held, strict=True) if tuple(row) not in self.always]
        least = max(about, default=0)  # what is said of something else is no answer
        best: list[int] = []  # where the answer starts
        most: int | None = None
        for fact, row, count in zip(facts, rows, held, strict=True):
            starts = _starts(wanted, row) if count >= least else []
            fit = 2 * count + len(wanted) - len(row)  # held, less what is neither held nor wanted
            if starts and (most is None or fit >= most):
                best = [*(best if fit == most else []), *(fact[start] for start in starts)]
                most = fit
        return [[start + i for start in best] for i in range(len(wanted))] if best else []

    def _phrases(self, question: Sequence[int]) -> list[list[str]]:
        runs: list[list[str]] = [[]]
        for word in self._words(question):
            if word in self.used:
                runs[-1].append(word)
            elif runs[-1]:
                runs.append([])
        return [run for run in runs if run]

    def _words(self, tokens: Iterable[int]) -> list[str]:
        """The tokens' words; a plural in "s" whose singular perceptions use is the singular."""
        found = (self._word(token) for token in tokens)
        return [word[:-1] if word[-1:] == "s" and word[:-1] in self.used else word for word in found]

    def _said(self, words: Sequence[int], fact: list[int]) -> tuple[str, ...]:
        return tuple(self._words(words[position] for position in fact))

    def _facts(self, words: Sequence[int]) -> list[list[int]]:
        facts: list[list[int]] = [[]]
        for position, token in enumerate(words):
            if token in self.ends:
                facts.append([])
            else:
                facts[-1].append(position)
        return [fact for fact in facts if fact]


def _starts(words: list[str], row: list[str]) -> list[int]:
    """Where ``words`` stand in a row in ``row``."""
    return [i for i in range(len(row) - len(words) + 1) if words and row[i : i + len(words)] == words]


def _places(phrases: list[list[str]], row: list[str]) -> list[int]:
    """Positions of all phrases in ``row``; none if one is missing, or if they stand in another order."""
    places: list[int] = []
    for phrase in phrases:
        start = next((i for i in _starts(phrase, row) if not places or i > places[-1]), None)
        if start is None:
            return []
        places += range(start, start + len(phrase))
    return places
