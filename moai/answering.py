"""Answer questions and conversations with a trained model and its experts.

Knows: both halves. ``load`` opens a run folder; ``Augmented.ask`` answers one question about one image, ``chat`` any
conversation, ``ask_many`` many questions in batches.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moai.errors import ExpertError, PromptError, nearest
from moai.images import read_image
from moai.model.likelihood import score_answers
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.experts import build_perceiver
from moai.model.processor.processor import MoaiProcessor
from moai.perception.cache.store import default_store
from moai.perception.running.perceiver import Perceiver
from moai.types import Conversation, Failure, Perception, Turn, merge
from moai.types.conversation import Turns

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from transformers.generation.streamers import BaseStreamer

    from moai.model.analysis.attribution import Attribution
    from moai.perception.explaining.explanation import Explanation

Given = Sequence[Sequence[Perception | None]]  # for each conversation one perception per image, or truths, or none


@dataclass(frozen=True)
class Answer:
    """An answer, and the perception that it rests on.

    Attributes:
        text: the answer.
        perception: of all images of the conversation together.
        verbalized: the perception in the words that the model got.
        failures: experts that returned nothing, and why.
        explanation: which words and findings the mixers attended to, where it was asked for.
    """

    text: str
    perception: Perception
    verbalized: str
    failures: tuple[Failure, ...]
    explanation: Explanation | None = None

    def __str__(self) -> str:
        return self.text


class Augmented:
    """A model, its processor and its experts. Any number of threads may use one object."""

    def __init__(self, model: MoaiForConditionalGeneration, processor: MoaiProcessor, perceiver: Perceiver) -> None:
        self.model, self.processor, self.perceiver = model, processor, perceiver

    # Answering ---------------------------------------------------------------------------------------------------

    def ask(
        self,
        image: Any,
        question: str,
        *,
        max_new_tokens: int = 16,
        experts: Sequence[str] | None = None,
        without: Sequence[str] = (),
        explain: bool = False,
    ) -> Answer:
        """Answer one question about one image.

        Args:
            image: a path, a PIL image, an array, or the bytes of an image file; ``None`` asks without an image.
            question: plain text; control tokens in it stay text.
            max_new_tokens: the longest answer.
            experts: names of those of the run's experts that run; left out, all of them. ``()``: none.
            without: names of those that do not run.
            explain: also find out what the mixers attend to; the prompt is then run twice.

        Raises:
            ImageError: the image cannot be read.
            PromptError: the question is empty or does not fit into the host's context, or there is nothing to explain.
            ExpertError: the run has no expert of this name.
        """
        conversation = Conversation.ask(question, () if image is None else (image,))
        return self.chat(conversation, max_new_tokens=max_new_tokens, experts=experts, without=without, explain=explain)

    def chat(
        self,
        turns: Turns,
        images: Sequence[Any] = (),
        *,
        max_new_tokens: int = 16,
        experts: Sequence[str] | None = None,
        without: Sequence[str] = (),
        explain: bool = False,
        streamer: BaseStreamer | None = None,
    ) -> Answer:
        """Answer the last turn of a conversation of any number of turns and images.

        Args:
            turns: a :class:`~moai.types.Conversation`, its turns, or messages as transformers takes them.
            images: of the turns, one per ``moai.IMAGE`` mark; not beside a conversation, which has its own.
            max_new_tokens, experts, without, explain: as for :meth:`ask`.
            streamer: of transformers; it gets the tokens of the prompt, then those of the answer as they are generated.

        Raises:
            PromptError: the last turn is empty or the assistant's, or as for :meth:`ask`.
            ImageError, ExpertError: as for :meth:`ask`.
        """
        conversation = self._conversation(turns, images)
        perceiver = self._chosen(experts, without)
        if explain:
            self._check_explainable()
        self.processor.encode(conversation)  # before the experts run: a prompt that is too long should cost nothing
        conversation = _with_pictures(conversation)
        perceptions = perceiver.perceive(conversation.images) if conversation.images else []
        [text] = self.answer([conversation], [perceptions], max_new_tokens, streamer=streamer)
        explanation = self.explain([conversation], [perceptions])[0] if explain else None
        return self._answered(text, perceptions, explanation)

    def ask_many(
        self,
        questions: Sequence[Conversation | tuple[Any, str]],
        *,
        max_new_tokens: int = 16,
        batch_size: int = 8,
        experts: Sequence[str] | None = None,
        without: Sequence[str] = (),
        progress: Callable[[int], None] | None = None,
    ) -> list[Answer]:
        """Answer many questions or conversations; experts run once over all images.

        Args:
            questions: conversations, or pairs of an image and a question.
            max_new_tokens, experts, without: as for :meth:`ask`.
            batch_size: conversations that the model answers together.
            progress: called with the number of conversations that were answered since.

        Raises:
            PromptError, ImageError, ExpertError: as for :meth:`chat`, before any expert runs where that is possible.
        """
        asked = [q if isinstance(q, Conversation) else Conversation.ask(q[1], (q[0],)) for q in questions]
        asked = [self._conversation(conversation, ()) for conversation in asked]
        perceiver = self._chosen(experts, without)
        for conversation in asked:
            self.processor.encode(conversation)
        flat = [image for conversation in asked for image in conversation.images]
        found = iter(perceiver.perceive(flat) if flat else [])
        given = [[next(found) for _ in conversation.images] for conversation in asked]
        answers = []
        for start in range(0, len(asked), batch_size):
            part = slice(start, start + batch_size)
            texts = self.answer(asked[part], given[part], max_new_tokens)
            answers += [self._answered(text, own, None) for text, own in zip(texts, given[part], strict=True)]
            if progress is not None:
                progress(len(texts))
        return answers

    def answer(
        self,
        conversations: Sequence[Conversation],
        perceptions: Given,
        max_new_tokens: int = 8,
        *,
        streamer: BaseStreamer | None = None,
    ) -> list[str]:
        """Answer conversations greedily in one batch.

        Args:
            conversations: up to where the answer begins.
            perceptions: for each one per image; ``None``, or an empty list, switches perception off.
            max_new_tokens: the longest answer.
            streamer: as for :meth:`chat`; for one conversation.
        """
        inputs = self._inputs(conversations, perceptions)
        output = self.model.generate(
            **inputs,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.stops,
            **({} if streamer is None else {"streamer": streamer}),
        )
        return self.processor.decode_answers(output[:, inputs["input_ids"].shape[1] :])

    def loglikelihood(self, conversations: Sequence[Conversation], given: Given, answers: Sequence[str]) -> list[float]:
        """Compute each answer's log probability after its conversation, without the token that closes a turn."""
        turns = [(*c.turns, Turn("assistant", answer)) for c, answer in zip(conversations, answers, strict=True)]
        whole = [Conversation(own, c.images) for own, c in zip(turns, conversations, strict=True)]
        scores = score_answers(self.model, self.processor, self._inputs(whole, given, labels=True))
        return [score.logprob for score in scores]

    def words(self, perception: Perception | Sequence[Perception]) -> str:
        """Verbalize a perception, or one for each image, in the run's language and style, without what does not fit."""
        return self.processor.verbalize(perception).text

    # Analysing ---------------------------------------------------------------------------------------------------

    def explain(self, conversations: Sequence[Conversation], perceptions: Given) -> list[Explanation]:
        """Find out what the mixers weigh and attend to in each prompt; the same for every answer to it.

        Raises:
            PromptError: the model has no mixers, gets its words in the prompt, or the prompt holds answers.
        """
        self._check_explainable()
        if any(turn.role == "assistant" for conversation in conversations for turn in conversation.turns):
            raise PromptError("explain one question at a time: turns that were answered are mixed apart from it")
        inputs = self._inputs(conversations, perceptions)
        found = self._attribution(inputs)
        rows = zip(inputs["input_ids"], perceptions, strict=True)
        return [
            self._explained(found, row, ids, [p for p in own if p is not None]) for row, (ids, own) in enumerate(rows)
        ]

    def _attribution(self, inputs: dict[str, torch.Tensor]) -> Attribution:
        with torch.no_grad():
            return self.model(**inputs, use_cache=False, logits_to_keep=1, return_attribution=True).attribution

    def _explained(self, found: Attribution, row: int, ids: torch.Tensor, own: list[Perception]) -> Explanation:
        from moai.model.analysis.attribution import patches
        from moai.perception.explaining.explanation import build_explanation
        from moai.perception.explaining.facts import find_facts
        from moai.perception.words.token_budget import Verbalization

        processor = self.processor
        words = processor.verbalize(own) if own else Verbalization("")
        shown = processor.perceptions.merged(own)
        spans = find_facts(shown, words, processor.language, processor.style) if words.text else []
        tokens = ids[found.language_index[row][found.language_mask[row]]]
        question = processor.tokenizer.batch_decode(tokens[:, None])
        places = processor.prompts.plain_spans(words.text) if words.text else []
        grid = patches(self.model, int(found.image_mask[row].sum()))
        return build_explanation(words.text, spans, places, question, *found.row(row), grid)

    def token_counts(self, conversations: Sequence[Conversation], perceptions: Given) -> list[dict[str, int]]:
        """Count what each conversation costs.

        ``prompt``: tokens in the host's sequence, the images' among them; ``auxiliary``: compressed tokens that the
        mixers attend to beside it; ``words``: tokens of the verbalized perception that the compressor condensed.
        """
        latents = len(self.model.auxiliary.compressor.latents) if self.model.auxiliary.compressor else 0
        counts, encoder, places = [], self.processor.perceptions, self.processor.images
        for conversation, own in zip(conversations, perceptions, strict=True):
            text = len(self.processor.encode(conversation).ids) + len(encoder.in_prompt(own))
            length = text - places.placeholders(len(conversation.images)) + sum(places.counts(conversation.images))
            found = [p for p in own if p is not None]
            words = len(encoder.words(found)) if found and encoder.inject == "mixers" else 0
            mapped = any(encoder.has_map(p) for p in found)
            counts.append({"prompt": length, "auxiliary": latents if words or mapped else 0, "words": words})
        return counts

    def gate_weights(
        self, conversations: Sequence[Conversation], perceptions: Given
    ) -> dict[int, tuple[NDArray[Any], NDArray[Any]]]:
        """Compute what the gates give each module in the prompts.

        Returns:
            Layer -> weights ``(image tokens, 3)`` and ``(question tokens, 3)`` of all prompts together, in the order of
            ``IMAGE_MODULES`` and ``LANGUAGE_MODULES`` in ``moai.model.mixer.mixer``; each row sums to one. Nothing
            for a model without mixers.
        """
        if not len(self.model.mixers):
            return {}
        found = self._attribution(self._inputs(conversations, perceptions))
        return {
            mixer.layer: (
                mixer.image.gates[found.image_mask].cpu().numpy(),
                mixer.language.gates[found.language_mask].cpu().numpy(),
            )
            for mixer in found.mixers
        }

    # Inside ------------------------------------------------------------------------------------------------------

    def _conversation(self, turns: Turns, images: Sequence[Any]) -> Conversation:
        conversation = Conversation.of(turns, images)
        last = conversation.turns[-1]
        if last.role == "assistant":
            raise PromptError("the conversation ends with an answer; add the turn that asks for the next one")
        if not last.text.strip():
            raise PromptError("the question is empty; ask something about the image")
        return conversation

    def _chosen(self, experts: Sequence[str] | None, without: Sequence[str]) -> Perceiver:
        """A view of the perceiver with some of its experts; it shares their engines and the cache."""
        names = [expert.name for expert in self.perceiver.experts]
        wanted = [experts] if isinstance(experts, str) else experts
        unwanted = [without] if isinstance(without, str) else without
        for name in (*(wanted or ()), *unwanted):
            if name not in names:
                raise ExpertError(f"this model has no expert '{name}'{nearest(name, names)}")
        return self.perceiver.only(n for n in names if (wanted is None or n in wanted) and n not in unwanted)

    def _answered(self, text: str, perceptions: Sequence[Perception], explanation: Explanation | None) -> Answer:
        perception = merge(perceptions)
        return Answer(text, perception, self.words(perceptions), perception.failures, explanation)

    def _check_explainable(self) -> None:
        if self.processor.inject == "prompt":
            raise PromptError("this model gets its words in the prompt (perception.inject), not through mixers; "
                              "there is nothing to explain")  # fmt: skip
        if not len(self.model.mixers) or not self.model.mixed:
            raise PromptError("this model has no mixers to analyse; explain one that was trained with them")

    @property
    def stops(self) -> list[int]:
        """Ids that end an answer: the host's, and the one by which the chat template closes a turn."""
        own = self.model.generation_config.eos_token_id
        own = [own] if isinstance(own, int) else list(own or ())
        return list(dict.fromkeys([*own, *self.processor.prompts.stops]))

    def _inputs(self, chats: Sequence[Conversation], given: Given, labels: bool = False) -> dict[str, torch.Tensor]:
        batch = self.processor.batch(chats, given, labels=labels)
        return {name: value.to(self.model.device) for name, value in batch.items()}


def _with_pictures(conversation: Conversation) -> Conversation:
    """The conversation with its images read, so that experts and model get the same."""
    return Conversation(conversation.turns, tuple(read_image(i) for i in conversation.images), conversation.loss)


def load(run_dir: str | Path, *, device: str | None = None, dtype: str | None = None) -> Augmented:
    """Open a run folder.

    An expert whose package is missing is left out with a warning that says what to install, and one that has another
    version than the run was trained with is warned about.

    Args:
        run_dir: what ``moai train`` made, or a hub id of such a folder.
        device: ``"cpu"``, ``"cuda"``, ..; left out, a GPU when there is one.
        dtype: of the host; left out, the one it was trained with.

    Raises:
        CheckpointError: a file is missing or altered; the message names it.
    """
    model = MoaiForConditionalGeneration.from_pretrained(run_dir, dtype=dtype)
    processor = MoaiProcessor.from_pretrained(model.name_or_path)
    device = device or ("cuda" if torch.cuda.is_available() else "cpu")
    perceiver = build_perceiver(processor, processor.installed_experts(), default_store())
    return Augmented(model.to(device).fix_adapters(), processor, perceiver)
