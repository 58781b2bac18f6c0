"""Cache the states that enter the first mixer's layer, where they are the same in every step of a stage.

Knows: the model and the samples of a stage. Below the first mixer a frozen host reads the prompt and the answer alone.
Where no image has features, a row of tokens has the same states whichever image it is about, so that a data set of few
questions needs these layers once per question and answer, and not once per sample and step.

Which rows are computed together is settled by the stage's samples, before its first step: so a resumed run has the
states of an uninterrupted one, bit for bit. They differ from those of a batch by the rounding of other shapes alone. A
stage in which rows hardly repeat, or take too much memory, has none.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from moai.compat import is_compiled
from moai.model.arguments import OPTIONAL
from moai.model.host.layers import decoder_layers
from moai.model.mixer.forward_context import ForwardContext, Reached, current
from moai.model.mixer.inputs import prompt_of
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor
from moai.recipe.stages import Training
from moai.training.stage_plan import StagePlan
from moai.types import Sample

NAME = "prefix_states"  # of the tensor in a batch
LIMIT = 2**30  # bytes of all states of a stage
REUSE = 2  # how often a row has to come, on average
GROUP = 32  # rows that are computed together
FROZEN = {"compressor", "mixers", "gates"}  # parts that may train: nothing of them is below the first mixer

Key = tuple[int, ...]


def can_cache(model: MoaiForConditionalGeneration, training: Training, plan: StagePlan) -> bool:
    """Whether the states below the first mixer stay the same throughout a stage, as far as the stage itself decides."""
    stage, others = plan.stage, training.trainer
    varying = ("bf16", "fp16", "fsdp", "torch_compile", "gradient_checkpointing", "dataloader_num_workers")
    return (
        stage.objective == "answers"
        and len(model.mixers) > 0
        and min(map(int, model.mixers)) > 0
        and model.images.can_drop
        and (stage.image_dropout == 1 or not model.images.has_tokens)
        and set(stage.train.parts()) <= FROZEN
        and not training.packing
        and not any(others.get(name) for name in varying)
        and not is_compiled(model.host)
    )


class PrefixStates:
    """The states that enter the first mixer's layer, of the rows of one stage.

    Args:
        model, processor: of the run; nothing below the first mixer trains in the stage.
        rows: token ids -> a sample with this row.
    """

    def __init__(self, model: MoaiForConditionalGeneration, processor: MoaiProcessor, rows: dict[Key, Sample]) -> None:
        self.model, self.processor = model, processor
        self.layer = min(map(int, model.mixers))
        self.states: dict[Key, Tensor] = {}  # (S, D), without padding
        self._given: Tensor | None = None  # of the forward pass that runs
        self._computing = self._tuples = False
        with self.installed():
            ordered = sorted(rows, key=lambda key: (len(key), key))
            for start in range(0, len(ordered), GROUP):
                self._compute({key: rows[key] for key in ordered[start : start + GROUP]})

    @classmethod
    def of_stage(
        cls,
        model: MoaiForConditionalGeneration,
        processor: MoaiProcessor,
        samples: Sequence[Sample],
        training: Training,
        plan: StagePlan,
    ) -> PrefixStates | None:
        """Compute the states of a stage's rows; None where they change, or where caching them would not pay.

        Args:
            model, processor: of the run.
            samples: of the training split; those of the stage's steps are read.
            training, plan: of the stage.
        """
        if processor.inject == "prompt" or not can_cache(model, training, plan) or plan.batches.facts.lazy:
            return None
        table, rows, size = model.get_input_embeddings().weight, {}, 0
        for index in plan.batches.used().tolist():
            sample = samples[index]
            key = _key(processor, sample)
            if key not in rows:
                rows[key] = sample
                size += processor.lengths([sample.conversation])[0] * table.shape[1] * table.dtype.itemsize
            if size > LIMIT or len(rows) * REUSE > plan.steps * plan.stage.batch_size:
                return None
        return cls(model, processor, rows)

    def fill(self, batch: dict[str, Any], samples: Sequence[Sample]) -> dict[str, Any]:
        """Put the states of a batch in the place of its images' tensors; ``samples`` are those of its rows."""
        ids = batch["input_ids"]
        found = [self.states[_key(self.processor, sample)] for sample in samples]
        padded = found[0].new_zeros(*ids.shape, found[0].shape[1])
        for row, states in enumerate(found):
            padded[row, : len(states)] = states  # training pads on the right
        kept = {name: value for name, value in batch.items() if name not in ("pixel_values", "image_keep")}
        return {**kept, NAME: padded}

    @contextmanager
    def installed(self) -> Iterator[None]:
        """Let forward passes with states begin at the first mixer's layer, for the block."""
        layers = decoder_layers(self.model.host)
        first = layers[self.layer]
        hooks = [
            self.model.register_forward_pre_hook(self._take, with_kwargs=True),
            self.model.register_forward_hook(self._forget, always_call=True),
            first.register_forward_pre_hook(self._enter, with_kwargs=True, prepend=True),
        ]
        own = [(layer, layer.forward) for layer in layers[: self.layer]]
        for layer, forward in own:
            layer.forward = partial(self._pass, forward)
        try:
            yield
        finally:
            for layer, forward in own:
                del layer.forward
                if layer.forward != forward:  # it was not the class's
                    layer.forward = forward
            for hook in hooks:
                hook.remove()

    def _take(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        """Before the model: take the states out of its arguments; the host gets them in place of embeddings."""
        self._given = kwargs.pop(NAME, None)
        if self._given is None:
            return args, kwargs
        return args, {**kwargs, "inputs_embeds": self._given}

    def _forget(self, *_: Any) -> None:
        self._given = None

    def _pass(self, forward: Any, hidden_states: Tensor, *args: Any, **kwargs: Any) -> Any:
        """A layer below: nothing, where its states are known."""
        if self._states() is None:
            found = forward(hidden_states, *args, **kwargs)
            self._tuples = isinstance(found, tuple)
            return found
        return (hidden_states,) if self._tuples else hidden_states

    def _enter(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> tuple[tuple, dict[str, Any]] | None:
        """Before the first mixer's layer."""
        if self._computing:
            raise Reached(args[0] if args else kwargs["hidden_states"])
        given = self._states()
        if given is None:
            return None
        # Not what came up: a host may have scaled the states as it scales embeddings.
        return ((given, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": given})

    def _states(self) -> Tensor | None:
        """The states of the pass that runs; None where it has none, or puts words in context meanwhile."""
        context = current(self.model.graft)
        return self._given if context is not None and context.stop_at is None else None

    @torch.no_grad()
    def _compute(self, rows: dict[Key, Sample]) -> None:
        model, device = self.model, next(self.model.parameters()).device
        conversations = [sample.conversation for sample in rows.values()]
        batch = self.processor.batch(conversations, [[] for _ in rows], labels=True)
        ids, mask = batch["input_ids"].to(device), batch["attention_mask"].to(device)
        pixels = batch["pixel_values"].to(device) if "pixel_values" in batch else None
        words = batch["prompt_mask"].to(device).bool()
        prompt = prompt_of(ids, None, words, model.config.image_token_id)
        none = torch.zeros(len(ids), dtype=torch.bool, device=device)
        given = model.images.host_inputs(prompt, pixels, None, none, {})
        given.update(model.images.position_inputs(ids, mask, ids.shape[1], 0, {}))
        given["use_cache"] = False
        known = {name: value for name, value in given.items() if name in model.host_takes or name not in OPTIONAL}
        was, self._computing = model.training, True
        model.eval()
        try:
            with ForwardContext(model.graft).running():
                model.host(**known, attention_mask=mask)
        except Reached as reached:
            for key, states, length in zip(rows, reached.states.cpu(), mask.sum(dim=1).tolist(), strict=True):
                self.states[key] = states[:length].clone()
        finally:
            self._computing = False
            model.train(was)


def _key(processor: MoaiProcessor, sample: Sample) -> Key:
    """The row of a sample with one token for each image: without features all images are alike."""
    return processor.encode(sample.conversation, labels=True).ids
