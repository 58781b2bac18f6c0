"""Answer the conversations of a harness, and score given answers.

Knows: the loaded run, conversations and perceptions; nothing of benchmarks. A call is one batch; each row is answered
as if it stood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from transformers import StoppingCriteriaList

from moai import Conversation
from moai.plugin_api import Score, score_answers
from moai.types import DESCRIBE, describe_images, with_rationale
from moai_lmms_eval.decoding import Decoding, Stops, cut
from moai_lmms_eval.perceiving import PerceptionSource
from moai_lmms_eval.prompts import with_answer

if TYPE_CHECKING:
    from moai import Augmented


@dataclass(frozen=True)
class Reply:
    """Hold an answer and its cost in tokens."""

    text: str
    prompt_tokens: int
    answer_tokens: int


class Engine:
    """Answer conversations by a run, with perception on, off or shuffled.

    Args:
        augmented: as ``moai.load`` gives it.
        perception, seed: see :class:`moai_lmms_eval.perceiving.PerceptionSource`.
    """

    def __init__(self, augmented: Augmented, perception: str = "on", seed: int = 0) -> None:
        self.model, self.processor, self.stops = augmented.model, augmented.processor, augmented.stops
        self.source = PerceptionSource(augmented.perceiver, perception, seed)

    def generate(self, conversations: Sequence[Conversation], decoding: Decoding | None = None) -> list[Reply]:
        """Answer each conversation.

        Raises:
            PromptError: a conversation does not fit into the host's context.
        """
        decoding = decoding or Decoding()
        inputs = self._inputs(conversations)
        start, lengths = inputs["input_ids"].shape[1], inputs["attention_mask"].sum(dim=1)
        stops = Stops(self.processor.tokenizer, decoding.until, start, self._room(lengths))
        output = self.model.generate(
            **inputs,
            max_new_tokens=decoding.max_new_tokens,
            eos_token_id=self.stops,
            stopping_criteria=StoppingCriteriaList([stops]),
            **{"do_sample": False, **decoding.options},
        )
        generated = output[:, start:]
        texts = self.processor.tokenizer.batch_decode(generated, skip_special_tokens=True)
        return [
            Reply(cut(text, decoding.until).strip(), *counts)
            for text, *counts in zip(texts, lengths.tolist(), self._answer_lengths(generated), strict=True)
        ]

    def reason(
        self,
        conversations: Sequence[Conversation],
        decoding: Decoding | None = None,
        request: str = DESCRIBE,
        tokens: int = 128,
    ) -> list[Reply]:
        """Answer in two calls, as KOSMOS-1's chain of thought does: first describe the images, then answer.

        Args:
            conversations: one whose last turn has no image is answered at once.
            decoding: of the answer.
            request: what the first call asks; left out, KOSMOS-1's words.
            tokens: the longest description.
        """
        asked = [describe_images(c, request) for c in conversations if c.turns[-1].images]
        described = iter(self.generate(asked, Decoding(tokens)) if asked else ())
        second = [with_rationale(c, next(described).text) if c.turns[-1].images else c for c in conversations]
        return self.generate(second, decoding)

    def loglikelihood(self, conversations: Sequence[Conversation], answers: Sequence[str]) -> list[Score]:
        """Score each answer to its conversation: the sum of its tokens' log-probabilities.

        The answer stands as the chat template writes it, without the token that closes a turn; space around it does not
        count. An empty answer has probability one.

        Raises:
            PromptError: conversation and answer together do not fit into the host's context.
        """
        texts = [answer.strip() for answer in answers]
        answered = [with_answer(c, text) for c, text in zip(conversations, texts, strict=True) if text]
        scores = iter(self._scores(answered) if answered else ())
        return [next(scores) if text else Score(0.0, True) for text in texts]

    def choose(self, conversations: Sequence[Conversation], answer: str = "Yes") -> tuple[int, list[float]]:
        """Find the conversation to which ``answer`` is likeliest, and its probability in each of them."""
        scores = self.loglikelihood(conversations, [answer] * len(conversations))
        chances = [float(torch.tensor(score.logprob).exp()) for score in scores]
        return chances.index(max(chances)), chances

    def _inputs(self, conversations: Sequence[Conversation], labels: bool = False) -> dict[str, Tensor]:
        for conversation in conversations:
            # Before the experts run: a conversation that is too long should cost nothing.
            self.processor.encode(conversation, labels=labels)
        found = iter(self.source.perceive([image for c in conversations for image in c.images]))
        perceptions = [[next(found) for _ in c.images] for c in conversations]
        batch = self.processor.batch(conversations, perceptions, labels=labels)
        return {name: value.to(self.model.device) for name, value in batch.items()}

    def _room(self, lengths: Tensor) -> Tensor:
        """Count the tokens left for each answer, ``(B,)``: a row's limit must not depend on another's prompt."""
        limit = self.processor.max_length
        return torch.full_like(lengths, torch.iinfo(torch.int32).max) if limit is None else limit - lengths

    def _scores(self, conversations: Sequence[Conversation]) -> list[Score]:
        """Score the last turn of each conversation."""
        return score_answers(self.model, self.processor, self._inputs(conversations, labels=True))

    def _answer_lengths(self, generated: Tensor) -> list[int]:
        """Count the tokens of each answer: up to the first that ends it, without padding."""
        ends = {*self.stops, self.processor.tokenizer.pad_token_id}
        rows = generated.tolist()
        return [next((at for at, token in enumerate(row) if token in ends), len(row)) for row in rows]
