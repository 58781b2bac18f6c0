"""The finished thing: a trained model with its experts, ready to be asked.

Knows: both halves. ``load`` opens a run folder; ``Augmented.ask`` answers one question about one image.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from moai.errors import ExpertError, PromptError, nearest
from moai.images import read_image
from moai.model.host.native_vision import sees
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor
from moai.perception.cache.store import default_store
from moai.perception.running.perceiver import Perceiver
from moai.types import Failure, Perception

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL.Image import Image

    from moai.model.analysis.attribution import Attribution
    from moai.perception.explaining.explanation import Explanation


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it rests on."""

    text: str
    perception: Perception
    verbalized: str
    failures: tuple[Failure, ...]
    explanation: Explanation | None = None
    """Which words and findings were read, when ``ask`` was given ``explain=True``."""

    def __str__(self) -> str:
        return self.text


class Augmented:
    """A model, its processor and its experts. One thread at a time is in the model; others wait."""

    def __init__(self, model: MoaiForConditionalGeneration, processor: MoaiProcessor, perceiver: Perceiver) -> None:
        self.model, self.processor, self.perceiver = model, processor, perceiver
        self._lock = threading.Lock()

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
            image: a path, a PIL image, an array, or the bytes of an image file.
            question: plain text; control tokens in it stay text.
            max_new_tokens: the longest answer.
            experts: names of those of the run's experts that look; left out, all of them. ``()``: none.
            without: names of those that do not look.
            explain: also look at what the mixers read; the prompt is then read twice.

        Raises:
            ImageError: the image cannot be read.
            PromptError: the question is empty or does not fit into the host's context, or there is nothing to explain.
            ExpertError: the run has no expert of this name.
        """
        if not question.strip():
            raise PromptError("the question is empty; ask something about the image")
        perceiver = self._chosen(experts, without)
        picture = read_image(image)
        self.processor.prompt_ids(question)  # before the experts look: a prompt that is too long should cost nothing
        if explain:
            self._check_explainable()
        [perception] = perceiver.perceive([picture])
        [text] = self.answer_batch([picture], [question], [perception], max_new_tokens)
        explanation = self.explain([picture], [question], [perception])[0] if explain else None
        return Answer(text, perception, self.words(perception), perception.failures, explanation)

    def answer_batch(
        self,
        images: Sequence[Image],
        questions: Sequence[str],
        perceptions: Sequence[Perception | None],
        max_new_tokens: int = 8,
    ) -> list[str]:
        """Answer one question about each image, greedily; ``None`` in ``perceptions`` switches perception off."""
        inputs = self._inputs(images, questions, perceptions)
        with self._lock:
            output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        answers = output[:, inputs["input_ids"].shape[1] :]
        return [text.strip() for text in self.processor.tokenizer.batch_decode(answers, skip_special_tokens=True)]

    def words(self, perception: Perception) -> str:
        """A perception as the model is given it: in the run's language and style, without what does not fit."""
        return self.processor.spoken(perception).text

    def explain(
        self, images: Sequence[Image], questions: Sequence[str], perceptions: Sequence[Perception | None]
    ) -> list[Explanation]:
        """What the mixers weigh and read while each prompt is read; the same for every answer to it.

        Raises:
            PromptError: the model has no mixers, or is given its words in the prompt.
        """
        self._check_explainable()
        inputs = self._inputs(images, questions, perceptions)
        read = self._attribution(inputs)
        rows = zip(inputs["input_ids"], perceptions, strict=True)
        return [self._explained(read, row, ids, seen) for row, (ids, seen) in enumerate(rows)]

    def _attribution(self, inputs: dict[str, torch.Tensor]) -> Attribution:
        with self._lock, torch.no_grad():
            return self.model(**inputs, use_cache=False, logits_to_keep=1, return_attribution=True).attribution

    def _explained(self, read: Attribution, row: int, ids: torch.Tensor, seen: Perception | None) -> Explanation:
        from moai.model.analysis.attribution import patches
        from moai.perception.explaining.explanation import put_to_words
        from moai.perception.explaining.facts import find_facts
        from moai.perception.words.token_budget import Spoken

        processor = self.processor
        spoken = Spoken("") if seen is None else processor.spoken(seen)
        said = find_facts(seen, spoken, processor.language, processor.style) if seen is not None and spoken.text else []
        spans = processor.plain_spans(spoken.text) if spoken.text else []
        tokens = ids[read.language_index[row][read.language_mask[row]]]
        question = processor.tokenizer.batch_decode(tokens[:, None])
        grid = patches(self.model, int(read.image_mask[row].sum()))
        return put_to_words(spoken.text, said, spans, question, *read.row(row), grid)

    def _check_explainable(self) -> None:
        if self.processor.through == "prompt":
            raise PromptError("this model is given its words in the prompt (perception.through), not through mixers; "
                              "there is nothing to explain")  # fmt: skip
        if not len(self.model.mixers) or not self.model.mixed:
            raise PromptError("this model has no mixers to look into; explain one that was trained with them")

    def _chosen(self, experts: Sequence[str] | None, without: Sequence[str]) -> Perceiver:
        """A view of the perceiver with some of its experts; it shares their engines and the cache."""
        names = [expert.name for expert in self.perceiver.experts]
        wanted = [experts] if isinstance(experts, str) else experts
        unwanted = [without] if isinstance(without, str) else without
        for name in (*(wanted or ()), *unwanted):
            if name not in names:
                raise ExpertError(f"this model has no expert '{name}'{nearest(name, names)}")
        return self.perceiver.only(n for n in names if (wanted is None or n in wanted) and n not in unwanted)

    def token_counts(
        self, questions: Sequence[str], perceptions: Sequence[Perception | None], images: Sequence[Image]
    ) -> list[dict[str, int]]:
        """What each question about its image costs, per question.

        ``prompt``: tokens in the host's sequence, the image's among them; ``auxiliary``: compressed tokens that the
        mixers read beside it; ``words``: tokens of the verbalized perception that the compressor condensed.
        """
        latents = len(self.model.compressor.latents) if len(self.model.mixers) else 0
        counts = []
        # Only a host that sees for itself gives images of different sizes different numbers of tokens.
        shown = images if sees(self.model.config) else None
        rows, _ = self._prompts(shown, questions, perceptions)
        for row, perception in zip(rows, perceptions, strict=True):
            words, mapped = (0, False) if perception is None else self.processor.aux_size(perception)
            counts.append({"prompt": len(row), "auxiliary": latents if words or mapped else 0, "words": words})
        return counts

    def gate_weights(
        self, images: Sequence[Image], questions: Sequence[str], perceptions: Sequence[Perception | None]
    ) -> dict[int, tuple[NDArray[Any], NDArray[Any]]]:
        """What the gates give each module while the prompts are read.

        Returns:
            Layer -> weights ``(image tokens, 3)`` and ``(question tokens, 3)`` of all prompts together, in the order of
            ``IMAGE_MODULES`` and ``LANGUAGE_MODULES`` in ``moai.model.mixer.mixer``; each row sums to one. Nothing
            for a model without mixers.
        """
        if not len(self.model.mixers):
            return {}
        read = self._attribution(self._inputs(images, questions, perceptions))
        return {
            mixer.layer: (
                mixer.image.gates[read.image_mask].cpu().numpy(),
                mixer.language.gates[read.language_mask].cpu().numpy(),
            )
            for mixer in read.mixers
        }

    def _prompts(
        self, images: Sequence[Image] | None, questions: Sequence[str], perceptions: Sequence[Perception | None]
    ) -> tuple[list[list[int]], dict[str, torch.Tensor]]:
        """Token ids of each question, and its image as the model takes it, where there are ``images``."""
        rows = [self.processor.prompt_ids(question) for question in questions]
        rows, pictures = (rows, {}) if images is None else self.processor.place(rows, [[image] for image in images])
        seen = [[] if perception is None else [perception] for perception in perceptions]
        return [self.processor.with_words(row, own) for row, own in zip(rows, seen, strict=True)], pictures

    def _inputs(
        self, images: Sequence[Image], questions: Sequence[str], perceptions: Sequence[Perception | None]
    ) -> dict[str, torch.Tensor]:
        processor = self.processor
        rows, pictures = self._prompts(images, questions, perceptions)
        batch = processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        inputs = {**batch, **pictures}
        inputs.update(processor.aux_inputs([[] if p is None else [p] for p in perceptions]))
        return {name: value.to(self.model.device) for name, value in inputs.items()}


def load(run_dir: str | Path, *, device: str | None = None, dtype: str | None = None) -> Augmented:
    """Open a run folder.

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
    perceiver = Perceiver(processor.experts, options=processor.expert_options, store=default_store())
    return Augmented(model.to(device).fix_adapters(), processor, perceiver)
