"""Define the model ``moai`` of lmms-eval for both forms of benchmarks: text with images, and conversations.

Knows: lmms-eval's requests and what its evaluator makes of the answers (read in version 0.7.3). The work is done by
``moai_lmms_eval.engine``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts, unwrap_generation_output
from lmms_eval.api.model import lmms
from lmms_eval.api.task import ConfigurableTask
from tqdm import tqdm

from moai import Augmented, Conversation, load
from moai.errors import RecipeError, nearest
from moai.plugin_api import Score
from moai.types import DESCRIBE
from moai_lmms_eval.decoding import Decoding, read_decoding
from moai_lmms_eval.engine import Engine, Reply
from moai_lmms_eval.prompts import from_messages, from_text

ARGUMENTS = ("run", "perception", "device", "dtype", "batch_size", "max_new_tokens", "rationale", "rationale_tokens",
             "scores", "seed")  # fmt: skip
SCORES = ("auto", "logprob", "loss")


class MoaiModel(lmms):
    """Offer a run folder as a model of lmms-eval; the base of its two forms."""

    def __init__(
        self,
        run: str | os.PathLike | Augmented | None = None,
        perception: str | bool = "on",
        *,
        device: str | None = None,
        dtype: str | None = None,
        batch_size: int | str = 1,
        max_new_tokens: int = 128,
        rationale: str | bool = "",
        rationale_tokens: int = 128,
        scores: str = "auto",
        seed: int = 0,
        max_batch_size: Any = None,
        **unknown: Any,
    ) -> None:
        """Open the run.

        Args:
            run: a run folder or a hub id of one, or what ``moai.load`` gave.
            perception: on, off, or shuffled: each image with another one's perception.
            device, dtype: as in ``moai.load``; with several processes each has its own GPU.
            batch_size: conversations at a time.
            max_new_tokens: of an answer, where the task does not say.
            rationale: on, or words of your own: describe the images first, then answer (two calls).
            rationale_tokens: the longest description.
            scores: what a multiple choice is given: ``logprob``, ``loss`` (its negative), or ``auto``, which asks the
                installed lmms-eval whether it takes the largest or the smallest for its answer.
            seed: of the shuffling.
            max_batch_size: given by lmms-eval; not used.

        Raises:
            RecipeError: an unknown or impossible argument.
        """
        super().__init__()
        for name in unknown:
            raise RecipeError(f"the model moai has no argument '{name}'{nearest(name, ARGUMENTS)}")
        if run is None:
            raise RecipeError("which run? say --model_args run=runs/quickstart")
        if scores not in SCORES:
            raise RecipeError(f"scores is '{scores}'{nearest(scores, SCORES)}")
        self.batch_size = _count("batch_size", batch_size)
        self.max_new_tokens = _count("max_new_tokens", max_new_tokens)
        self.rationale_tokens = _count("rationale_tokens", rationale_tokens)
        self.rationale, self.scores = _switch(rationale), scores
        augmented = run if isinstance(run, Augmented) else load(run, device=device or _own_gpu(), dtype=dtype)
        self.engine = Engine(augmented, _switch(perception) or "off", int(seed))

    @property
    def device(self) -> torch.device:
        """Return the model's device; the evaluator puts its own tensors there."""
        return self.engine.model.device

    def conversation(self, request: Instance) -> Conversation:
        """Build the conversation that a request asks to go on with."""
        raise NotImplementedError

    def generate_until(self, requests: list[Instance]) -> list[GenerationResult]:
        """Answer each request; alike in length and settings they share a batch."""
        settings = [read_decoding(self._settings(request), self.max_new_tokens) for request in requests]
        self._prepare(requests)
        results: dict[int, GenerationResult] = {}
        for group in self._batches(requests, settings):
            replies = self._answer([self.conversation(requests[at]) for at in group], settings[group[0]])
            for at, reply in zip(group, replies, strict=True):
                counts = TokenCounts(input_tokens=reply.prompt_tokens, output_tokens=reply.answer_tokens)
                results[at] = GenerationResult(reply.text, counts)
        return [results[at] for at in range(len(requests))]

    def generate_until_multi_round(self, requests: list[Instance]) -> list[list[str]]:
        """Answer round by round, each round asked by the task, which has read the answers before it."""
        if self.engine.source.needs_all_images:
            raise RecipeError("a task of several rounds gives its images as it goes on; use perception=on or off")
        return [self._rounds(request) for request in tqdm(requests, disable=self.rank != 0, desc="moai")]

    def loglikelihood(self, requests: list[Instance]) -> list[Any]:
        """Compute a :class:`Score` for each request's continuation, in the form that the installed lmms-eval can read.

        Version 0.7.3 turns a bare pair into a string, so it is returned inside a ``GenerationResult``; and it takes
        the *smallest* score of a multiple choice, so that choices are given as losses (see ``scores``).
        """
        self._prepare(requests)
        answers = [self._continuation(request) for request in requests]
        results: dict[int, Score] = {}
        for group in self._batches(requests, [Decoding()] * len(requests)):
            conversations = [self.conversation(requests[at]) for at in group]
            found = self.engine.loglikelihood(conversations, [answers[at] for at in group])
            results.update(zip(group, found, strict=True))
        turned = {at for at, request in enumerate(requests) if isinstance(request.args[1], str)}
        turned = turned if turned and self._wants_losses() else set()
        pairs = [(-results[at].logprob if at in turned else results[at].logprob, results[at].greedy)
                 for at in range(len(requests))]  # fmt: skip
        return pairs if _reads_pairs() else [GenerationResult(pair) for pair in pairs]

    def _answer(self, conversations: Sequence[Conversation], decoding: Decoding) -> list[Reply]:
        if not self.rationale:
            return self.engine.generate(conversations, decoding)
        request = DESCRIBE if self.rationale == "on" else self.rationale
        return self.engine.reason(conversations, decoding, request, self.rationale_tokens)

    def _rounds(self, request: Instance) -> list[str]:
        decoding, outputs, note = read_decoding(self._settings(request), self.max_new_tokens), [], None
        conversation: Conversation | None = self.conversation(request)
        while conversation is not None:
            outputs.append(self._answer([conversation], decoding)[0].text)
            conversation, given, note = self.next_round(request, list(outputs), note)
            outputs = list(given) if given is not None else outputs
        return outputs

    def next_round(self, request: Instance, outputs: list[str], note: Any) -> tuple[Conversation | None, Any, Any]:
        """Build the next conversation (None: there is none); and the outputs and the note that the task returns."""
        raise NotImplementedError

    def _prepare(self, requests: Sequence[Instance]) -> None:
        source = self.engine.source
        if source.needs_all_images:
            source.prepare(image for request in requests for image in self.conversation(request).images)

    def _batches(self, requests: Sequence[Instance], settings: Sequence[Decoding]) -> Iterator[list[int]]:
        """Group the indices of requests by settings, then by length: padding costs time."""
        groups: dict[str, list[int]] = {}
        for at in sorted(range(len(requests)), key=lambda at: len(_text(requests[at]))):
            groups.setdefault(repr(settings[at]), []).append(at)
        with tqdm(total=len(requests), disable=self.rank != 0, desc="moai") as bar:
            for group in groups.values():
                for start in range(0, len(group), self.batch_size):
                    yield (batch := group[start : start + self.batch_size])
                    bar.update(len(batch))

    def _continuation(self, request: Instance) -> str:
        target = request.args[1]
        return target if isinstance(target, str) else str(target(self._doc(request)))

    def _doc(self, request: Instance) -> Any:
        doc_id, task, split = request.args[-3:]
        return self.task_dict[task][split][doc_id]

    def _settings(self, request: Instance) -> dict:
        return next(item for item in request.args if isinstance(item, dict))

    def _wants_losses(self) -> bool:
        return _takes_smallest() if self.scores == "auto" else self.scores == "loss"


class MoaiSimple(MoaiModel):
    """Answer text with images beside it; the form for multiple choice by likelihood (``--force_simple``)."""

    is_simple = True

    def conversation(self, request: Instance) -> Conversation:
        """Build it of the context and the document's images; unconditional scores have no document."""
        if len(request.args) < 4:
            return from_text(_text(request))
        doc_to_visual = request.args[2]
        return from_text(_text(request), _images(doc_to_visual, self._doc(request)))

    def next_round(self, request: Instance, outputs: list[str], note: Any) -> tuple[Conversation | None, Any, Any]:
        """Build the next round by the task's ``doc_to_text``."""
        doc_to_text: Callable = request.args[3]
        images, text, last, given, note = doc_to_text(
            self._doc(request), previous_output=outputs, round_idx=len(outputs), previous_round_info=note
        )
        return None if last else from_text(text, images or ()), given, note


class MoaiChat(MoaiModel):
    """Answer conversations, with images among the words."""

    is_simple = False

    def conversation(self, request: Instance) -> Conversation:
        """Build it of the document's messages."""
        return from_messages(request.args[1](self._doc(request)))

    def next_round(self, request: Instance, outputs: list[str], note: Any) -> tuple[Conversation | None, Any, Any]:
        """Build the next round by the task's ``doc_to_messages``; a task without rounds has all in the first."""
        payload = request.args[1](
            self._doc(request), previous_output=outputs, round_idx=len(outputs), previous_round_info=note
        )
        if not isinstance(payload, tuple):
            return None, outputs, note
        messages, last, given, note = payload
        return None if last else from_messages(messages), given, note


def _text(request: Instance) -> str:
    context = request.args[0]
    return str(context[0] if isinstance(context, list) else context)


def _images(doc_to_visual: Callable | None, doc: Any) -> list:
    """List a document's images; text-only tasks give None, or a list of it."""
    found = doc_to_visual(doc) if doc_to_visual is not None else None
    return [image for image in found or () if image is not None]


def _switch(value: str | bool) -> str:
    """Read a switch that YAML or lmms-eval may have turned into a truth value; empty for off."""
    text = {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else str(value or "").strip()
    return "" if text == "off" else text


def _count(name: str, value: Any) -> int:
    try:
        count = int(value)
    except (TypeError, ValueError):
        count = 0
    if count < 1:
        raise RecipeError(f"{name} is '{value}'; give a number of at least 1")
    return count


def _own_gpu() -> str | None:
    """Choose the GPU of this process where there are several."""
    rank = os.environ.get("LOCAL_RANK")
    return f"cuda:{rank}" if rank is not None and torch.cuda.is_available() else None


def _reads_pairs() -> bool:
    """Return whether this lmms-eval gives a task the pair of score and flag unchanged."""
    return unwrap_generation_output((-1.0, True))[0] == (-1.0, True)


def _takes_smallest() -> bool:
    """Return whether this lmms-eval takes the smallest score of a multiple choice, by trying it: versions differ.

    Raises:
        RecipeError: its scoring has changed so much that it cannot be asked.
    """
    task = SimpleNamespace(
        OUTPUT_TYPE="multiple_choice",
        config=SimpleNamespace(process_results=None),
        _metric_fn_list={"acc": None},
        doc_to_choice=lambda doc: ["a", "b"],
        doc_to_target=lambda doc: 1,
        multiple_input=0,
        multiple_target=0,
    )
    score = getattr(ConfigurableTask.process_results, "__wrapped__", ConfigurableTask.process_results)
    try:
        return score(task, {}, [(-1.0, False), (-2.0, False)])["acc"] == 1.0
    except (AttributeError, KeyError, TypeError) as error:
        raise RecipeError(
            f"cannot tell how this lmms-eval reads the scores of a multiple choice ({error}); "
            "say scores=logprob if it takes the largest, scores=loss if the smallest"
        ) from error
