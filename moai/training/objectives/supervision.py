"""Which auxiliary words answer a question: what the mixers' attention is guided to.

Knows: token ids of questions, answers and words; nothing of the model. The loss of an answer tells a mixer little while
its attention is spread over all words. The words themselves tell more: the answer stands in one of the facts, mostly in
the one that shares most words with the question. After the supervised attention of Liu et
al. (arXiv 1609.04186), with targets found by comparing words instead of labelled ones.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from moai.model.encoders.facts import fact_ends
from moai.model.processor.prompts import IGNORED
from moai.types import Perception, Sample, Turn

if TYPE_CHECKING:
    from moai.model.processor.processor import MoaiProcessor

OFTENER = 4  # by how much a word's share of questions may exceed its share of perceptions that say it
MOST = 0.5  # share of all questions from which on a word says nothing about what one of them asks
ALWAYS = 0.9  # share of all perceptions from which on a fact is not about an image, but how a perception begins


class TargetFinder:
    """Finds the words that a question should attend to.

    Args:
        perceptions: token ids of every verbalized perception of the training data; which words they use is learnt here.
            A word that is said counts, also of an open vocabulary, whose names are all rare; but not one that questions
            hold and a perception says by accident, such as "is" and "the" on a printed sign. What tells them apart is
            how often each kind holds a word, and no fixed share of perceptions.
        ends: tokens that end a fact.
        text_of: a token's text; tokens are the same word when they differ in case and white space only, as the first
            word of a text does from the same word further on.
        null_token: the model has a token that stands for "none of these".
        questions: token ids of the questions of the training data; a word in more than half of them, or far oftener
            than in perceptions, is none that perceptions use.
    """

    def __init__(
        self,
        perceptions: Iterable[Sequence[int]],
        ends: Sequence[int],
        text_of: Callable[[int], str],
        null_token: bool = False,
        questions: Iterable[Sequence[int]] = (),
    ) -> None:
        self.ends, self.null_token = frozenset(ends), null_token
        self._word = lru_cache(None)(lambda token: text_of(token).strip().casefold())
        perceptions = list(perceptions)
        rows = [{self._word(token) for token in row if token not in self.ends} for row in perceptions]
        counts = Counter(word for row in rows for word in row)
        self.used = self._content(counts, len(rows), questions)
        facts = Counter(fact for row in perceptions for fact in {self._text(row, f) for f in self._facts(row)})
        self.always = {fact for fact, count in facts.items() if count >= ALWAYS * len(rows)}

    @classmethod
    def from_perceptions(
        cls,
        processor: MoaiProcessor,
        perceptions: Iterable[Perception],
        null_token: bool,
        samples: Iterable[Sample] = (),
    ) -> TargetFinder:
        """Build the finder for what ``processor`` makes of the perceptions and the samples of the training data."""
        tokenizer = processor.tokenizer
        words = [processor.perceptions.words([perception]) for perception in perceptions]
        asked = (processor.prompts.prompt(_asked(sample)).ids for sample in samples)
        return cls(words, fact_ends(tokenizer), lambda token: tokenizer.decode([token]), null_token, asked)

    def _content(self, said: Mapping[str, int], perceptions: int, questions: Iterable[Sequence[int]]) -> set[str]:
        """The words that perceptions use, of those that some perception says."""
        held: Counter[str] = Counter()
        count = 0
        for question in questions:
            held.update({self._word(token) for token in question})
            count += 1

        def counts(word: str) -> bool:
            share = held[word] / count if count else 0.0
            return bool(word) and share <= MOST and share <= OFTENER * said[word] / perceptions

        return {word for word in said if counts(word)}

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
        none = self.null_token and asked and heard and not found and (yes_no or not full)
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

    def _text(self, words: Sequence[int], fact: list[int]) -> tuple[str, ...]:
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


def target_masks(
    finder: TargetFinder, processor: MoaiProcessor, samples: Sequence[Sample], ids: Tensor, mask: Tensor
) -> Tensor:
    """Mark what each sample's question should attend to among its words: ``(B, G, A + 1)`` bool, one row per group.

    The last column is the null token's. ``G`` is the largest number of groups, at least 1.

    Args:
        finder: of the training data.
        processor: for the tokens of questions and answers.
        samples: in the order of the batch.
        ids, mask: ``aux_input_ids`` and ``aux_attention_mask`` ``(B, A)``.
    """
    found = []
    for sample, row, real in zip(samples, ids, mask.bool(), strict=True):
        words = row[real].tolist()
        found.append((len(words), finder.targets(words, *_tokens(processor, sample), sample.answer)))
    most = max((len(groups) for _, groups in found), default=1)
    targets = torch.zeros(len(samples), max(most, 1), ids.shape[1] + 1, dtype=torch.bool)
    for row, (length, groups) in enumerate(found):
        for number, group in enumerate(groups):
            targets[row, number, [position if position < length else -1 for position in group]] = True
    return targets


def _tokens(processor: MoaiProcessor, sample: Sample) -> tuple[Sequence[int], list[int]]:
    """Token ids of the question, and of the answer without the token that closes it."""
    conversation = sample.conversation
    prompt, asked = conversation.prompt, _asked(sample)
    if not sample.answer:
        return processor.prompts.prompt(asked).ids, []
    encoded, stops = processor.encode(conversation, labels=True), processor.prompts.stops
    begin = len(processor.encode(prompt).ids)  # of the last answer
    answer = [token for token in encoded.labels[begin:] if token not in stops and token != IGNORED]
    return processor.prompts.prompt(asked).ids, answer


def _asked(sample: Sample) -> tuple[Turn, ...]:
    """The question's turns, in the language of the perceptions."""
    if sample.question_translation is not None:
        return (Turn("user", sample.question_translation),)
    return sample.conversation.prompt.turns
