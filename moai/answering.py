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

from moai.errors import PromptError
from moai.images import read_image
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processing import MoaiProcessor
from moai.perception.run import Perceiver
from moai.perception.store import default_store
from moai.perception.types import Failure, Perception
from moai.perception.verbalize import verbalize

if TYPE_CHECKING:
    from PIL.Image import Image


@dataclass(frozen=True)
class Answer:
    """What the model said, and what it rests on."""

    text: str
    perception: Perception
    verbalized: str
    failures: tuple[Failure, ...]

    def __str__(self) -> str:
        return self.text


class Augmented:
    """A model, its processor and its experts. One thread at a time is in the model; others wait."""

    def __init__(self, model: MoaiForConditionalGeneration, processor: MoaiProcessor, perceiver: Perceiver) -> None:
        self.model, self.processor, self.perceiver = model, processor, perceiver
        self._lock = threading.Lock()

    def ask(self, image: Any, question: str, *, max_new_tokens: int = 16) -> Answer:
        """Answer one question about one image.

        Args:
            image: a path, a PIL image, an array, or the bytes of an image file.
            question: plain text; control tokens in it stay text.
            max_new_tokens: the longest answer.

        Raises:
            ImageError: the image cannot be read.
            PromptError: the question is empty or does not fit into the host's context.
        """
        if not question.strip():
            raise PromptError("the question is empty; ask something about the image")
        picture = read_image(image)
        self.processor.prompt_ids(question)  # before the experts look: a prompt that is too long should cost nothing
        [perception] = self.perceiver.perceive([picture])
        [text] = self.answer_batch([picture], [question], [perception], max_new_tokens)
        return Answer(text, perception, verbalize(perception, language=self.processor.language), perception.failures)

    def answer_batch(
        self,
        images: Sequence[Image],
        questions: Sequence[str],
        perceptions: Sequence[Perception | None],
        max_new_tokens: int = 8,
    ) -> list[str]:
        """Answer one question about each image, greedily; ``None`` in ``perceptions`` switches perception off."""
        processor = self.processor
        rows = [processor.prompt_ids(question) for question in questions]
        batch = processor.tokenizer.pad({"input_ids": rows}, padding_side="left", return_tensors="pt")
        inputs = {**batch, "pixel_values": processor.pixels(images)}
        inputs.update(processor.aux_inputs([[] if p is None else [p] for p in perceptions]))
        inputs = {name: value.to(self.model.device) for name, value in inputs.items()}
        with self._lock:
            output = self.model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False)
        texts = processor.tokenizer.batch_decode(output[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        return [text.strip() for text in texts]


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
    return Augmented(model.to(device), processor, perceiver)
