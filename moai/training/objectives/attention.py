"""The attention objective: teach mixers which words to attend to, on cached states of the bare host.

Knows: the model, and which words a question should attend to. Fresh mixers change nothing, so that the state of each
prompt's last token at each mixer's layer, and each image's compressed auxiliary tokens, are known before they train.
With both cached, a step needs no pass through the host, which is nearly all that a training step costs. Trained are the
queries and keys of the modules by which language attends to auxiliary tokens, and the null token.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence
from contextlib import nullcontext, suppress
from typing import NamedTuple

import torch
from torch import Tensor, nn

from moai.compat import is_compiled
from moai.errors import RecipeError
from moai.model.arguments import OPTIONAL
from moai.model.mixer.forward_context import ForwardContext, Reached
from moai.model.mixer.inputs import prompt_of
from moai.model.mixer.mixer import Streams
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor
from moai.recipe.stages import Stage
from moai.training.batches import COUNT, Share
from moai.training.objectives.supervision import TargetFinder, target_masks
from moai.training.word_cache import GROUP, WordCache
from moai.types import Perception, Sample


class Asked(NamedTuple):
    """A prompt as its last token knows it."""

    states: Tensor  # (mixers + 1, D): its states, then the question embedding
    words: Tensor  # token ids of its words


class Cached(NamedTuple):
    """What was computed once, in half precision, since there is one row per image and question."""

    questions: dict[Hashable, Asked]  # by ``_key``
    aux: dict[tuple[str, ...], tuple[Tensor, Tensor]]  # image ids -> compressed tokens (C, D) and their mask (C,)
    targets: dict[int, Tensor]  # sample -> (G, C + 1) bool
    matches: dict[int, Tensor]  # sample -> (C, 2) of find_matches, for mixers that match words


class AttentionObjective(nn.Module):
    """The queries and keys by which language attends to auxiliary tokens, and the loss on where they look.

    Only these are its parameters. Of a model's mixers nothing else has a part in the loss.

    Args:
        model: fresh mixers, on its device.
    """

    def __init__(self, model: MoaiForConditionalGeneration) -> None:
        super().__init__()
        self._mixers = list(model.mixers.values())
        modules = [mixer.attention["language_aux"] for mixer in self._mixers]
        self.reading = nn.ModuleList([part for module in modules for part in (module.query, module.key)])
        self.null = nn.ParameterList([mixer.null for mixer in self._mixers if mixer.null is not None])

    def forward(
        self, questions: Tensor, aux: Tensor, aux_mask: Tensor, targets: Tensor, matches: Tensor | None = None
    ) -> dict[str, Tensor]:
        """Compute the mean over rows and mixers.

        Args:
            questions: ``(B, mixers + 1, D)``: the last prompt token's states, then the question embedding.
            aux, aux_mask: compressed tokens ``(B, C, D)`` and their mask.
            targets: ``(B, G, C + 1)`` bool.
            matches: ``(B, C, 2)``, of the question's words.
        """
        alone = torch.ones(len(questions), 1, dtype=torch.bool, device=questions.device)
        total = questions.new_zeros(())
        for number, mixer in enumerate(self._mixers):
            language = questions[:, number : number + 1]
            streams = Streams(
                language[:, :0], alone[:, :0], language, alone, aux, aux_mask, questions[:, -1], None, matches
            )
            total = total + mixer.attention_loss(streams, targets)
        return {"loss": total / len(self._mixers)}


class AttentionBatches:
    """Make the arguments of a share of a stage with this objective, those of :class:`AttentionObjective`.

    Args:
        model, processor: of the run.
        finder: finds which words a question should attend to.
        samples: training samples; those without a target, or without a perception, are left out.
        perceptions: image id -> perception.
        chosen: indices of the samples that may be used.
        stage: whose name is told where no sample has a target.
        word_cache: of auxiliary words.

    Raises:
        RecipeError: no sample has a target.
    """

    def __init__(
        self,
        model: MoaiForConditionalGeneration,
        processor: MoaiProcessor,
        finder: TargetFinder,
        samples: Sequence[Sample],
        perceptions: Mapping[str, Perception | None],
        *,
        chosen: Sequence[int],
        stage: Stage,
        word_cache: WordCache,
    ) -> None:
        self.model, self.samples = model, samples
        used = {index: samples[index] for index in chosen}
        self.cached = _cache(model, processor, finder, used, perceptions, word_cache)
        self.usable = sorted(self.cached.targets)
        if not self.usable:
            raise RecipeError(
                f"no perception holds the answer of its question, so stages.{stage.name} can teach nothing; drop it"
            )

    def __call__(self, shares: Sequence[Share]) -> dict[str, Tensor]:
        """Collate one share."""
        [share] = shares
        indices = [share.indices[row] for row in share.places] or [share.indices[0]]
        batch = _collated(self.model, self.samples, indices, self.cached)
        if not share.places:
            batch["targets"] = torch.zeros_like(batch["targets"])
        return {**batch, COUNT: torch.tensor(len(share.places))}


class HeldOutAttention:
    """The attention loss of questions that are not trained; an alignment may fit its own all too well.

    Args:
        model, processor, finder, perceptions: as for :class:`AttentionBatches`.
        samples: of the validation split; those without a target, or without a perception, are left out.
    """

    def __init__(
        self,
        model: MoaiForConditionalGeneration,
        processor: MoaiProcessor,
        finder: TargetFinder,
        samples: Sequence[Sample],
        perceptions: Mapping[str, Perception | None],
    ) -> None:
        self.model, self.samples = model, samples
        # A word cache of its own: what is computed together for training stays as it is.
        given = (dict(enumerate(samples)), perceptions, WordCache(model))
        self.cached = _cache(model, processor, finder, *given)
        self.usable = sorted(self.cached.targets)

    @torch.no_grad()
    def measure(self, objective: AttentionObjective) -> dict[str, float]:
        """Return ``attention_validation``, the mean over questions; nothing where none has a target."""
        device, total = next(objective.parameters()).device, 0.0
        for part in _parts(self.usable, GROUP):
            batch = _collated(self.model, self.samples, part, self.cached)
            batch = {name: tensor.to(device) for name, tensor in batch.items()}
            total += float(objective(**batch)["loss"]) * len(part)
        return {"attention_validation": total / len(self.usable)} if self.usable else {}


def _collated(
    model: MoaiForConditionalGeneration, samples: Sequence[Sample], indices: Sequence[int], cached: Cached
) -> dict[str, Tensor]:
    """The arguments of :class:`AttentionObjective` for some samples."""
    chosen = [samples[index] for index in indices]
    matches = [cached.matches[index] for index in indices if index in cached.matches]
    return {
        "questions": torch.stack([cached.questions[_key(model, sample)].states for sample in chosen]).float(),
        "aux": torch.stack([cached.aux[sample.image_ids][0] for sample in chosen]).float(),
        "aux_mask": torch.stack([cached.aux[sample.image_ids][1] for sample in chosen]),
        "targets": nn.utils.rnn.pad_sequence([cached.targets[index] for index in indices], batch_first=True),
        **({"matches": torch.stack(matches).float()} if matches else {}),
    }


@torch.no_grad()
def _cache(
    model: MoaiForConditionalGeneration,
    processor: MoaiProcessor,
    finder: TargetFinder,
    samples: Mapping[int, Sample],
    perceptions: Mapping[str, Perception | None],
    word_cache: WordCache,
) -> Cached:
    device = next(model.mixers.parameters()).device
    cached = Cached({}, {}, {}, {})
    found = perceived_images(samples.values(), perceptions)
    usable = [index for index, sample in samples.items() if sample.image_ids in found]
    was = model.training
    model.eval()
    asked = {_key(model, samples[index]): samples[index] for index in usable}
    for part in _parts(sorted(asked.values(), key=lambda sample: len(sample.question)), GROUP):
        cached.questions.update(zip((_key(model, s) for s in part), _asked(model, processor, part), strict=True))
    about: dict[tuple[str, ...], list[int]] = {}
    for index in usable:
        about.setdefault(samples[index].image_ids, []).append(index)
    for part in _parts(list(found), GROUP):
        inputs = processor.perceptions.auxiliary([found[images] for images in part])
        rows = [(row, index) for row, images in enumerate(part) for index in about[images]]
        repeated = {key: value[[row for row, _ in rows]] for key, value in inputs.items() if value.ndim == 2}
        words = (repeated["aux_input_ids"], repeated["aux_attention_mask"])
        masks = target_masks(finder, processor, [samples[index] for _, index in rows], *words)
        targets = model.auxiliary.target_latents(masks, *words, repeated.get("aux_pixel_mask"))
        cached.targets.update((index, one) for (_, index), one in zip(rows, targets, strict=True) if one.any())
        if model.auxiliary.matches:
            questions = [cached.questions[_key(model, samples[index])].words for _, index in rows]
            ids = nn.utils.rnn.pad_sequence(questions, batch_first=True, padding_value=-1)
            starts = model.auxiliary.starts(*words, repeated.get("aux_pixel_mask"))
            matches = model.auxiliary.find_matches(*(part.to(device) for part in (ids, ids >= 0, starts)))
            cached.matches.update(zip((index for _, index in rows), matches.bfloat16().cpu(), strict=True))
        given = {key[4:]: value.to(device) for key, value in word_cache.fill(inputs).items()}
        states, mask = model.auxiliary(**given)
        cached.aux.update(zip(part, zip(states.bfloat16().cpu(), mask.cpu(), strict=True), strict=True))
    model.train(was)
    return cached


def _asked(model: MoaiForConditionalGeneration, processor: MoaiProcessor, samples: Sequence[Sample]) -> list[Asked]:
    """States of each prompt's last token at each mixer, with the question embedding, and the question's words."""
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
    stacked = torch.stack([*(state[:, -1] for state in states), question], dim=1).bfloat16().cpu()
    return [Asked(row, ids[real].cpu()) for row, ids, real in zip(stacked, inputs["input_ids"], words, strict=True)]


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
    # A graph cannot be left in its middle.
    eager = torch.compiler.set_stance("force_eager") if is_compiled(model.host) else nullcontext()
    with eager, context.running(), suppress(Reached):
        model.host(**known, attention_mask=attention_mask, **images)
    return context.states


def perceived_images(
    samples: Iterable[Sample], perceptions: Mapping[str, Perception | None]
) -> dict[tuple[str, ...], list[Perception | None]]:
    """List the samples' images that have a perception, each sample's together: image ids -> perceptions, in order."""
    found = {s.image_ids: [perceptions.get(image) for image in s.image_ids] for s in samples}
    return {images: seen for images, seen in found.items() if any(p is not None for p in seen)}


def _key(model: MoaiForConditionalGeneration, sample: Sample) -> Hashable:
    """What decides the state of a prompt's last token.

    One question for many images: an image whose features are dropped adds nothing, so the states are the same. The
    host's own vision cannot be dropped, and its states depend on the image.
    """
    turns = sample.conversation.prompt.turns
    return turns if model.images.can_drop else (sample.image_ids, turns)


def _parts(items: list, size: int) -> list[list]:
    return [items[start : start + size] for start in range(0, len(items), size)]
