"""Before training: teach the mixers where to look, on states of the bare host that are computed once.

Knows: the model and the guide. Fresh mixers change nothing, so what they will be asked is known before they train: the
state of each prompt's last token at each mixer's layer, and each image's compressed auxiliary tokens. With both kept,
a step of learning which token to read needs no pass through the host, which is nearly all that a training step
costs. Trained are the queries and keys of the modules by which language reads auxiliary tokens, and the none token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from moai.data.collate import Collator
from moai.errors import RecipeError
from moai.model.host.native_vision import sees
from moai.model.mixer.graft import MixerHook
from moai.model.mixer.mixer import Streams
from moai.types import Sample


class Kept(NamedTuple):
    """What was computed once; half of what single precision needs, since there is one row per image and question."""

    questions: dict[Hashable, Tensor]  # ``_asked`` -> (mixers + 1, D): states, then what the words say together
    images: dict[str, tuple[Tensor, Tensor]]  # image id -> compressed tokens (C, D) and their mask (C,)
    marks: dict[int, Tensor]  # sample -> (G, C + 1) bool


def align(
    model: nn.Module,
    collator: Collator,
    samples: Sequence[Sample],
    perceptions: dict,
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    advance: Callable[[int, str], None] = lambda count, text: None,
    with_words: Callable[[dict], dict] = lambda batch: batch,
) -> list[float]:
    """Train queries and keys to read what ``collator.guide`` says, and return the loss of each step.

    Args:
        model: fresh mixers, on its device.
        collator: with a guide.
        samples: training samples; those without a target, or without a perception, are left out.
        perceptions: image id -> perception.
        steps, batch_size, learning_rate, seed: of this stage; the rate falls in a line to a tenth.
        advance: called with 1 and a text after each step.
        with_words: puts ``aux_words`` into a batch and keeps them, for who needs them again.

    Raises:
        RecipeError: no sample has a target.
    """
    kept = _keep(model, collator, samples, perceptions, batch_size, with_words)
    usable = sorted(kept.marks)
    if not usable:
        raise RecipeError(
            "no perception says the answer of its question, so training.align can teach nothing; set it to 0"
        )
    modules = [mixer.attention["language_aux"] for mixer in model.mixers.values()]
    parameters = [p for module in modules for part in (module.query, module.key) for p in part.parameters()]
    parameters += [mixer.none for mixer in model.mixers.values() if mixer.none is not None]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    rng, losses = random.Random(f"{seed}/align"), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 50) * (1 - 0.9 * step / steps)
        drawn = rng.sample(usable, min(batch_size, len(usable)))
        loss = _loss(model, kept, [(samples[index], kept.marks[index]) for index in drawn])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimizer.step()
        losses.append(float(loss.detach()))
        advance(1, f"guide {losses[-1]:.3f}")
    return losses


def _loss(model: nn.Module, kept: Kept, rows: list[tuple[Sample, Tensor]]) -> Tensor:
    device = next(model.mixers.parameters()).device
    kept_rows = [kept.questions[_asked(model, sample)] for sample, _ in rows]
    asked = torch.stack(kept_rows).to(device).float()  # (B, mixers + 1, D)
    aux = torch.stack([kept.images[sample.image_id][0] for sample, _ in rows]).to(device).float()
    mask = torch.stack([kept.images[sample.image_id][1] for sample, _ in rows]).to(device)
    marks = nn.utils.rnn.pad_sequence([mark for _, mark in rows], batch_first=True).to(device)
    alone = torch.ones(len(rows), 1, dtype=torch.bool, device=device)
    total = asked.new_zeros(())
    for number, mixer in enumerate(model.mixers.values()):
        language = asked[:, number : number + 1]
        streams = Streams(language[:, :0], alone[:, :0], language, alone, aux, mask, asked[:, -1])
        total = total + mixer.guide_loss(streams, marks)
    return total / len(model.mixers)


@torch.no_grad()
def _keep(
    model: nn.Module,
    collator: Collator,
    samples: Sequence[Sample],
    perceptions: dict,
    batch: int,
    with_words: Callable[[dict], dict],
) -> Kept:
    device = next(model.mixers.parameters()).device
    kept = Kept({}, {}, {})
    usable = [index for index, sample in enumerate(samples) if perceptions.get(sample.image_id) is not None]
    was = model.training
    model.eval()
    asked = {_asked(model, samples[index]): samples[index] for index in usable}
    for part in _parts(sorted(asked.values(), key=lambda sample: len(sample.question)), batch):
        inputs = {key: value.to(device) for key, value in collator(part, [None] * len(part), answers=False).items()}
        if not sees(model.config):
            inputs["image_keep"] = torch.zeros(len(part), dtype=torch.bool, device=device)
        with _entering(model) as states:
            model(**inputs, use_cache=False)
        # Padded on the left, so the last token is a prompt's last.
        words = inputs["prompt_mask"] & (inputs["input_ids"] != model.config.image_token_id)
        together = model.question_mean(inputs["input_ids"], words)
        last = torch.stack([*(state[:, -1] for state in states), together], dim=1)
        kept.questions.update(zip((_asked(model, s) for s in part), last.bfloat16().cpu(), strict=True))
    about: dict[str, list[int]] = {}
    for index in usable:
        about.setdefault(samples[index].image_id, []).append(index)
    for part in _parts(list(about), batch):
        inputs = collator.processor.aux_inputs([[perceptions[image]] for image in part])
        rows = [(row, index) for row, image in enumerate(part) for index in about[image]]
        repeated = {key: value[[row for row, _ in rows]] for key, value in inputs.items() if value.ndim == 2}
        asking = [samples[index] for _, index in rows]
        marks = collator.marks(asking, repeated["aux_input_ids"], repeated["aux_attention_mask"])
        seen = [repeated.get(f"aux_{name}") for name in ("input_ids", "attention_mask", "pixel_mask")]
        slots = model.guide_slots(marks, *seen)
        kept.marks.update((index, mark) for (_, index), mark in zip(rows, slots, strict=True) if mark.any())
        states, mask = model.encode_aux(**{key: value.to(device) for key, value in with_words(inputs).items()})
        kept.images.update(zip(part, zip(states.bfloat16().cpu(), mask.cpu(), strict=True), strict=True))
    model.train(was)
    return kept


def _asked(model: nn.Module, sample: Sample) -> Hashable:
    """What decides the state of a prompt's last token.

    One question for many images: an image whose features are dropped says nothing, so the states are the same. A host
    that sees for itself always does, and is asked about each image.
    """
    return (sample.image_id, sample.question) if sees(model.config) else sample.question


def _parts(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]


@contextmanager
def _entering(model: nn.Module):
    """Collects the hidden states that come to each mixer, in their order, while the block runs."""
    states: list[Tensor] = []
    found = {hook.mixer: (module, hook) for module in model.host.modules() for hook in _mixer_hooks(module)}

    def collect(module, args, kwargs):
        states.append(args[0] if args else kwargs["hidden_states"])

    hooks = [
        found[mixer][0].register_forward_pre_hook(collect, with_kwargs=True, prepend=True)
        for mixer in model.mixers.values()
    ]
    try:
        yield states
    finally:
        for hook in hooks:
            hook.remove()


def _mixer_hooks(module: nn.Module) -> list[MixerHook]:
    return [hook for hook in module._forward_pre_hooks.values() if isinstance(hook, MixerHook)]
