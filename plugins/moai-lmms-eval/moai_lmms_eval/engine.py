"""What a harness asks of a model: write an answer, and say how likely a given answer is.

Knows: the loaded run, prompts and perceptions; nothing of benchmarks. A call is one batch; each row is answered as if
it stood alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor
from transformers import StoppingCriteriaList

from moai.errors import PromptError
from moai_lmms_eval.decoding import Decoding, Stops, cut
from moai_lmms_eval.prompts import Prompt, describe, raven_prompts, with_rationale
from moai_lmms_eval.sight import Sight

if TYPE_CHECKING:
    from moai import Augmented
    from moai.types import Perception


@dataclass(frozen=True)
class Reply:
    """An answer and what it cost in tokens."""

    text: str
    prompt_tokens: int
    answer_tokens: int


class Score(NamedTuple):
    """``logprob``: natural logarithm of a text's probability; ``greedy``: a greedy answer would begin with it."""

    logprob: float
    greedy: bool


class Engine:
    """A run that answers prompts with perception on, off or shuffled."""

    def __init__(self, augmented: Augmented, perception: str = "on", seed: int = 0) -> None:
        """Nothing is answered yet.

        Args:
            augmented: as ``moai.load`` gives it.
            perception, seed: see :class:`moai_lmms_eval.sight.Sight`.
        """
        self.model, self.processor = augmented.model, augmented.processor
        self.sight = Sight(augmented.perceiver, perception, seed)

    def generate(self, prompts: Sequence[Prompt], decoding: Decoding | None = None) -> list[Reply]:
        """Answer each prompt.

        Raises:
            PromptError: a prompt does not fit into the host's context.
        """
        decoding = decoding or Decoding()
        rows, pictures, seen = self._read(prompts)
        inputs = self._inputs(rows, pictures, seen)
        start = inputs["input_ids"].shape[1]
        # Each row has its own room: what a row may say must not depend on how long its neighbour's prompt is.
        room = torch.tensor([self._room(row) for row in rows])
        stops = Stops(self.processor.tokenizer, decoding.until, start, room)
        output = self.model.generate(
            **inputs,
            max_new_tokens=decoding.max_new_tokens,
            stopping_criteria=StoppingCriteriaList([stops]),
            **{"do_sample": False, **decoding.options},
        )
        written = output[:, start:]
        texts = self.processor.tokenizer.batch_decode(written, skip_special_tokens=True)
        lengths = self._lengths(written)
        return [
            Reply(cut(text, decoding.until).strip(), len(row), length)
            for text, row, length in zip(texts, rows, lengths, strict=True)
        ]

    def reason(
        self, prompts: Sequence[Prompt], decoding: Decoding | None = None, request: str = "", tokens: int = 128
    ) -> list[Reply]:
        """Answer in two calls, as KOSMOS-1's chain of thought does: first describe the pictures, then answer.

        Args:
            prompts: a prompt whose last turn has no picture is answered at once.
            decoding: of the answer.
            request: what the first call asks; left out, KOSMOS-1's words.
            tokens: the longest description.
        """
        looking = [prompt for prompt in prompts if describe(prompt).images]
        asked = [describe(prompt, request) if request else describe(prompt) for prompt in looking]
        told = iter(self.generate(asked, Decoding(tokens)) if asked else ())
        second = [with_rationale(prompt, next(told).text) if describe(prompt).images else prompt for prompt in prompts]
        return self.generate(second, decoding)

    @torch.no_grad()
    def loglikelihood(self, prompts: Sequence[Prompt], answers: Sequence[str]) -> list[Score]:
        """How likely each answer is to its prompt: the sum of its tokens' log-probabilities.

        The answer stands as the chat template writes it, without the token that ends a turn; space around it does not
        count. An empty answer has probability one.

        Raises:
            PromptError: prompt and answer together do not fit into the host's context.
        """
        rows, pictures, seen = self._read(prompts)
        tails = [self._answer_ids(prompt, answer) for prompt, answer in zip(prompts, answers, strict=True)]
        for row, tail in zip(rows, tails, strict=True):
            self._room(row, len(tail))
        width = max(map(len, tails))
        if width == 0:
            return [Score(0.0, True) for _ in rows]
        whole = [row + tail for row, tail in zip(rows, tails, strict=True)]
        inputs = self._inputs(whole, pictures, seen, [len(tail) for tail in tails])
        output = self.model(**inputs, use_cache=False, logits_to_keep=width + 1)
        return self._scores(output.logits[:, :-1], inputs["input_ids"][:, -width:], tails)

    def choose(self, prompts: Sequence[Prompt], answer: str = "Yes") -> tuple[int, list[float]]:
        """The prompt to which ``answer`` is likeliest, and its probability under each of them."""
        chances = [float(torch.tensor(s.logprob).exp()) for s in self.loglikelihood(prompts, [answer] * len(prompts))]
        return chances.index(max(chances)), chances

    def raven(self, matrix: Sequence, candidates: Sequence) -> tuple[int, list[float]]:
        """Which candidate completes a Raven matrix, by KOSMOS-1's argmax of P("Yes"); and all probabilities."""
        return self.choose(raven_prompts(matrix, candidates))

    def _read(self, prompts: Sequence[Prompt]) -> tuple[list[list[int]], dict[str, Tensor], list[list[Perception]]]:
        """Token ids of each prompt, its pictures as the model takes them, and what is given of them in words."""
        rows = [self._ids(prompt) for prompt in prompts]
        for row in rows:
            self._room(row)  # before the experts look: a prompt that is too long should cost nothing
        rows, pictures = self.processor.place(rows, [prompt.images for prompt in prompts])
        found = iter(self.sight([image for prompt in prompts for image in prompt.images]))
        seen = [[one for _ in prompt.images if (one := next(found)) is not None] for prompt in prompts]
        return [self.processor.with_words(row, own) for row, own in zip(rows, seen, strict=True)], pictures, seen

    def _ids(self, prompt: Prompt) -> list[int]:
        return self.processor.conversation_ids(list(prompt.turns), add_generation_prompt=True)

    def _answer_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Ids of the answer behind the prompt, as the template writes it there."""
        text = answer.strip()
        return self.processor.reply_ids(list(prompt.turns), self._ids(prompt), text)[:-1] if text else []

    def _room(self, row: list[int], answer: int = 1) -> int:
        """Tokens left for an answer."""
        limit = self.processor.max_length
        if limit is None:
            return torch.iinfo(torch.int32).max
        if len(row) + answer > limit:
            raise PromptError(
                f"a prompt of the benchmark has {len(row)} tokens and the host's context holds {limit}; "
                "use fewer examples or pictures, or a host with a longer context"
            )
        return limit - len(row)

    def _inputs(
        self,
        rows: list[list[int]],
        pictures: dict[str, Tensor],
        seen: list[list[Perception]],
        answers: Sequence[int] | None = None,
    ) -> dict[str, Tensor]:
        """Left-padded model inputs; ``answers`` are tokens at each row's end that are no prompt."""
        batch = self.processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        inputs = {**batch, "prompt_mask": batch["attention_mask"].bool()}
        for row, length in enumerate(answers or ()):
            inputs["prompt_mask"][row, inputs["prompt_mask"].shape[1] - length :] = False
        inputs.update(pictures)
        inputs.update(self.processor.aux_inputs(seen))
        return {name: value.to(self.model.device) for name, value in inputs.items()}

    def _scores(self, logits: Tensor, ids: Tensor, tails: Sequence[list[int]]) -> list[Score]:
        """``logits (B, W, V)`` and ``ids (B, W)`` of the last W positions; a row's answer is at its end."""
        chances = logits.float().log_softmax(dim=-1)
        picked = chances.gather(-1, ids[..., None]).squeeze(-1).double()
        said = chances.index_fill(-1, torch.tensor([self.processor.image_token_id], device=ids.device), -torch.inf)
        right = said.argmax(dim=-1) == ids  # the placeholder is never generated
        lengths = [len(tail) for tail in tails]
        return [
            Score(float(picked[row, len(ids[row]) - n :].sum()), bool(right[row, len(ids[row]) - n :].all()))
            for row, n in enumerate(lengths)
        ]

    def _lengths(self, written: Tensor) -> list[int]:
        """Tokens of each answer: up to the first that ends it, padding not counted."""
        ends = {self.processor.tokenizer.eos_token_id, self.processor.tokenizer.pad_token_id}
        rows = written.tolist()
        return [next((at for at, token in enumerate(row) if token in ends), len(row)) for row in rows]
