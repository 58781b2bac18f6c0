"""Alignment: teach the mixers where to look before training, on states of the bare host that are computed once.

Knows: the model, and which words a question should attend to. Fresh mixers change nothing, so that the state of each
prompt's last token at each mixer's layer, and each image's compressed auxiliary tokens, are known before they train.
With both cached, a step needs no pass through the host, which is nearly all that a training step costs. Trained are the
queries and keys of the modules by which language attends to auxiliary tokens, and the null token.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from moai.errors import RecipeError
from moai.model.arguments import OPTIONAL
from moai.model.mixer.forward_context import ForwardContext
from moai.model.mixer.inputs import prompt_of
from moai.model.mixer.mixer import Streams
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor
from moai.training.objectives.supervision import TargetFinder, target_masks
from moai.training.word_cache import WordCache
from moai.types import Perception, Sample


class Cached(NamedTuple):
    """What was computed once, in half precision, since there is one row per image and question."""

    questions: dict[Hashable, Tensor]  # ``_key`` -> (mixers + 1, D): states, then the question embedding
    aux: dict[tuple[str, ...], tuple[Tensor, Tensor]]  # image ids -> compressed tokens (C, D) and their mask (C,)
    targets: dict[int, Tensor]  # sample -> (G, C + 1) bool


def align(
    model: MoaiForConditionalGeneration,
    processor: MoaiProcessor,
    finder: TargetFinder,
    samples: Sequence[Sample],
    perceptions: Mapping[str, Perception | None],
    *,
    steps: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    advance: Callable[[int, str], None] = lambda count, text: None,
    word_cache: WordCache | None = None,
) -> list[float]:
    """Train queries and keys to attend to the targets of ``finder``, and return the loss of each step.

    Args:
        model: fresh mixers, on its device.
        processor: of the model.
        finder: finds which words a question should attend to.
        samples: training samples; those without a target, or without a perception, are left out.
        perceptions: image id -> perception.
        steps, batch_size, learning_rate, seed: of this stage; the rate falls linearly to a tenth.
        advance: called with 1 and a text after each step.
        word_cache: caches auxiliary words in context; training goes on with it.

    Raises:
        RecipeError: no sample has a target.
    """
    cached = _cache(model, processor, finder, samples, perceptions, batch_size, word_cache or WordCache(model))
    usable = sorted(cached.targets)
    if not usable:
        raise RecipeError(
            "no perception holds the answer of its question, so training.align can teach nothing; set its steps to 0"
        )
    modules = [mixer.attention["language_aux"] for mixer in model.mixers.values()]
    parameters = [p for module in modules for part in (module.query, module.key) for p in part.parameters()]
    parameters += [mixer.null for mixer in model.mixers.values() if mixer.null is not None]
    optimizer = torch.optim.AdamW(parameters, lr=learning_rate, weight_decay=0.01)
    rng, losses = random.Random(f"{seed}/align"), []
    for step in range(steps):
        for group in optimizer.param_groups:
            group["lr"] = learning_rate * min(1.0, (step + 1) / 50) * (1 - 0.9 * step / steps)
        drawn = rng.sample(usable, min(batch_size, len(usable)))
        loss = _loss(model, cached, [(samples[index], cached.targets[index]) for index in drawn])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0, error_if_nonfinite=True)
        optimizer.step()
        losses.append(float(loss.detach()))
        advance(1, f"attention {losses[-1]:.3f}")
    return losses


def _loss(model: MoaiForConditionalGeneration, cached: Cached, rows: list[tuple[Sample, Tensor]]) -> Tensor:
    device = next(model.mixers.parameters()).device
    states = [cached.questions[_key(model, sample)] for sample, _ in rows]
    asked = torch.stack(states).to(device).float()  # (B, mixers + 1, D)
    aux = torch.stack([cached.aux[sample.image_ids][0] for sample, _ in rows]).to(device).float()
    mask = torch.stack([cached.aux[sample.image_ids][1] for sample, _ in rows]).to(device)
    targets = nn.utils.rnn.pad_sequence([one for _, one in rows], batch_first=True).to(device)
    alone = torch.ones(len(rows), 1, dtype=torch.bool, device=device)
    total = asked.new_zeros(())
    for number, mixer in enumerate(model.mixers.values()):
        language = asked[:, number : number + 1]
        streams = Streams(language[:, :0], alone[:, :0], language, alone, aux, mask, asked[:, -1])
        total = total + mixer.attention_loss(streams, targets)
    return total / len(model.mixers)


@torch.no_grad()
def _cache(
    model: MoaiForConditionalGeneration,
    processor: MoaiProcessor,
    finder: TargetFinder,
    samples: Sequence[Sample],
    perceptions: Mapping[str, Perception | None],
    batch: int,
    word_cache: WordCache,
) -> Cached:
    device = next(model.mixers.parameters()).device
    cached = Cached({}, {}, {})
    found = {s.image_ids: [perceptions.get(image) for image in s.image_ids] for s in samples}
    usable = [index for index, s in enumerate(samples) if any(p is not None for p in found[s.image_ids])]
    was = model.training
    model.eval()
    asked = {_key(model, samples[index]): samples[index] for index in usable}
    for part in _parts(sorted(asked.values(), key=lambda sample: len(sample.question)), batch):
        states = _question_states(model, processor, part)
        cached.questions.update(zip((_key(model, s) for s in part), states, strict=True))
    about: dict[tuple[str, ...], list[int]] = {}
    for index in usable:
        about.setdefault(samples[index].image_ids, []).append(index)
    for part in _parts(list(about), batch):
        inputs = processor.perceptions.auxiliary([found[images] for images in part])
        rows = [(row, index) for row, images in enumerate(part) for index in about[images]]
        repeated = {key: value[[row for row, _ in rows]] for key, value in inputs.items() if value.ndim == 2}
        words = (repeated["aux_input_ids"], repeated["aux_attention_mask"])
        masks = target_masks(finder, processor, [samples[index] for _, index in rows], *words)
        targets = model.auxiliary.target_latents(masks, *words, repeated.get("aux_pixel_mask"))
        cached.targets.update((index, one) for (_, index), one in zip(rows, targets, strict=True) if one.any())
        given = {key[4:]: value.to(device) for key, value in word_cache.fill(inputs).items()}
        states, mask = model.auxiliary(**given)
        cached.aux.update(zip(part, zip(states.bfloat16().cpu(), mask.cpu(), strict=True), strict=True))
    model.train(was)
    return cached


def _question_states(
    model: MoaiForConditionalGeneration, processor: MoaiProcessor, samples: Sequence[Sample]
) -> Tensor:
    """States of each prompt's last token at each mixer, then the question embedding: ``(B, mixers + 1, D)``."""
    device = next(model.mixers.parameters()).device
    prompts = [sample.conversation.prompt for sample in samples]
    batch = processor.batch(prompts, [[] for _ in prompts])
    inputs = {key: value.to(device) for key, value in batch.items()}
    mixed = inputs.pop("prompt_mask")
    if model.images.can_drop:
        inputs["image_keep"] = torch.zeros(len(prompts), dtype=torch.bool, device=device)
    states = _mixer_states(model, **inputs)
    words = mixed & (inputs["input_ids"] != model.config.image_token_id)
    question = model.auxiliary.question_embedding(inputs["input_ids"], words)
    # Padded on the left, so the last token is a prompt's last.
    return torch.stack([*(state[:, -1] for state in states), question], dim=1).bfloat16().cpu()


def _mixer_states(
    model: MoaiForConditionalGeneration, input_ids: Tensor, attention_mask: Tensor, **images: Tensor
) -> list[Tensor]:
    """Run the host without mixing, and return the hidden states ``(B, S, D)`` that come to each mixer."""
    pixels, keep = images.pop("pixel_values", None), images.pop("image_keep", None)
    prompt = prompt_of(input_ids, None, None, model.config.image_token_id)
    given = model.images.host_inputs(prompt, pixels, None, keep, images)
    given.update(model.images.position_inputs(input_ids, attention_mask, input_ids.shape[1], 0, images))
    given.update({"logits_to_keep": 1, "use_cache": False})
    known = {name: value for name, value in given.items() if name in model.host_takes or name not in OPTIONAL}
    context = ForwardContext(model.graft, states=[])
    with context.running():
        model.host(**known, attention_mask=attention_mask, **images)
    return context.states


def _key(model: MoaiForConditionalGeneration, sample: Sample) -> Hashable:
    """What decides the state of a prompt's last token.

    One question for many images: an image whose features are dropped adds nothing, so the states are the same. The
    host's own vision cannot be dropped, and its states depend on the image.
    """
    turns = sample.conversation.prompt.turns
    return turns if model.images.can_drop else (sample.image_ids, turns)


def _parts(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
