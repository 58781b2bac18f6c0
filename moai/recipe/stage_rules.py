"""Which stages fit a recipe, and what a stage that leaves something out means.

Knows: sections only. Every complaint is a ``ValueError``, of which the recipe's loading makes one line.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from moai.recipe.sections import EncoderVision, HostVision
from moai.recipe.stages import Stage, TrainSection

if TYPE_CHECKING:
    from moai.recipe.schema import Recipe

DEFAULT_RATES = {"connector": 1e-3, "compressor": 1e-4, "mixers": 1e-3, "gates": 1e-3}


def attention_stages(recipe: Recipe) -> list[Stage]:
    """List the stages with the attention objective."""
    return [stage for stage in recipe.stages if stage.objective == "attention"]


def settled(recipe: Recipe) -> tuple[Stage, ...]:
    """Return the stages with all that they leave out filled in.

    Raises:
        ValueError: a stage that does not fit the model, or the stages before it.
    """
    names = [stage.name for stage in recipe.stages]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two stages are called '{twice[0]}'; give each a name of its own")
    filled = []
    for number, stage in enumerate(recipe.stages):
        before = filled[number - 1] if number else None
        _check_length(stage)
        _check_continues(stage, before)
        made = _filled(recipe, stage, before)
        _check_parts(recipe, made)
        if made.accumulation > made.batch_size:
            raise ValueError(
                f"stages.{made.name}: {made.accumulation} parts of a batch of {made.batch_size}; "
                "lower accumulation, or raise batch_size"
            )
        _check_attention(made, filled)
        filled.append(made)
    if isinstance(recipe.vision, EncoderVision) and recipe.start is None:  # with a start, the run decides
        check_images_reach(filled)
    _check_host(recipe, filled)
    return tuple(filled)


def present_parts(recipe: Recipe) -> dict[str, str]:
    """Name the parts that a recipe's model lacks, each with what gives it one."""
    lacks = {}
    if not isinstance(recipe.vision, EncoderVision):
        lacks |= dict.fromkeys(("connector", "vision"), "vision.kind: encoder")
    if recipe.mixer.layers == ():
        lacks |= dict.fromkeys(("compressor", "mixers", "gates"), "mixer.layers")
    return lacks


def _filled(recipe: Recipe, stage: Stage, before: Stage | None) -> Stage:
    training, update = recipe.training, {}
    given = stage.schedule.model_dump(exclude_unset=True) if stage.schedule is not None else {}
    shared = before.schedule if stage.continues and before is not None else training.schedule
    update["schedule"] = shared.model_copy(update=given)
    for key in ("batch_size", "accumulation"):
        if getattr(stage, key) is None:
            update[key] = getattr(training, key)
    encoder = isinstance(recipe.vision, EncoderVision)
    if stage.image_dropout is None:
        update["image_dropout"] = 0.5 if encoder and stage.objective == "answers" else 0.0
    elif stage.image_dropout and not encoder:
        raise ValueError(f"stages.{stage.name}.image_dropout needs vision.kind: encoder; leave it out")
    if stage.connector and not encoder:
        raise ValueError(f"stages.{stage.name}.connector needs vision.kind: encoder; leave it out")
    if stage.train is None:
        update["train"] = _default_parts(recipe, stage)
    return stage.model_copy(update=update)


def _default_parts(recipe: Recipe, stage: Stage) -> TrainSection:
    lacks = present_parts(recipe)
    rates: dict[str, Any] = {name: rate for name, rate in DEFAULT_RATES.items() if name not in lacks}
    if stage.objective == "attention":
        rates = {"mixers": 2e-3}
    elif stage.routing == "random_module":
        rates.pop("gates", None)  # they take no part in the draw
    return TrainSection(**rates)


def _check_length(stage: Stage) -> None:
    if (stage.steps is None) == (stage.epochs is None):
        raise ValueError(f"stages.{stage.name} needs a length: give either steps or epochs")
    if stage.objective != "attention" and stage.samples is not None:
        raise ValueError(f"stages.{stage.name}.samples is for objective: attention; leave it out")
    if stage.objective == "attention" and stage.steps is None:
        raise ValueError(f"stages.{stage.name}: objective: attention has no epochs; give steps")


def _check_continues(stage: Stage, before: Stage | None) -> None:
    if not stage.continues:
        return
    if before is None or before.objective != "answers" or stage.objective != "answers":
        raise ValueError(
            f"stages.{stage.name}.continues needs a stage before it, both with objective: answers; set it to false"
        )
    if stage.schedule is not None and stage.schedule != before.schedule:  # equal in a resolved recipe
        raise ValueError(
            f"stages.{stage.name} continues the schedule of '{before.name}'; leave its own out, "
            "or set continues to false"
        )


def _check_parts(recipe: Recipe, stage: Stage) -> None:
    parts, lacks = stage.train.parts(), present_parts(recipe)
    for name in parts:
        if name in lacks:
            raise ValueError(f"stages.{stage.name}.train.{name} needs {lacks[name]}; set it to null, or leave it out")
    if not parts:
        raise ValueError(f"stages.{stage.name} has nothing to train; name a part under train, such as connector: 1e-3")
    if "gates" in parts and stage.routing == "random_module":
        raise ValueError(
            f"stages.{stage.name}.train.gates: routing: random_module draws modules without gates; "
            "set it to null, or use routing: gates"
        )


def _check_attention(stage: Stage, before: list[Stage]) -> None:
    if stage.objective != "attention":
        return
    if set(stage.train.parts()) != {"mixers"}:
        raise ValueError(f"stages.{stage.name}: objective: attention trains the mixers alone; name only train.mixers")
    if stage.accumulation != 1:
        raise ValueError(f"stages.{stage.name}: objective: attention runs on cached states; leave accumulation out")
    trained = [one.name for one in before if one.objective == "answers" and one.train.mixers is not None]
    if trained:
        raise ValueError(
            f"stages.{stage.name}: objective: attention needs mixers that change nothing yet, "
            f"and '{trained[0]}' trains them before it; move it before that stage"
        )


def check_images_reach(stages: Sequence[Stage]) -> None:
    """Refuse a fresh connector that no stage gives an image: its output would be noise in every answer.

    Raises:
        ValueError: all stages leave out all images.
    """
    answering = [stage for stage in stages if stage.objective == "answers"]
    if answering and all(stage.image_dropout == 1 for stage in answering):
        raise ValueError(
            f"stages.{answering[-1].name}.image_dropout: no stage gives the connector an image, and what it makes of "
            "one would be noise in every answer; set vision to {kind: none}, or lower the dropout of a stage"
        )


def _check_host(recipe: Recipe, stages: list[Stage]) -> None:
    hosts = {stage.name: stage.train.host for stage in stages if stage.train.host is not None}
    kinds = {(part.lora, part.targets) for part in hosts.values()}
    if len(kinds) > 1:
        raise ValueError(f"the stages {', '.join(hosts)} train the host in different forms; give all the same lora")
    for name, part in hosts.items():
        if part.targets and part.lora is None:
            raise ValueError(f"stages.{name}.train.host.targets are of low-rank adapters; give lora, or leave them out")
        if part.lora is None and recipe.host.quantization is not None:
            raise ValueError(
                f"stages.{name}.train.host: a quantized host cannot train; set its lora, or host.quantization to null"
            )
        if part.lora is None and recipe.host.dtype != "float32":
            raise ValueError(
                f"stages.{name}.train.host: {recipe.host.dtype} rounds small updates away; set host.dtype: float32 "
                "(with training.trainer.bf16: true it still computes in bf16), or train.host.lora"
            )
    if recipe.host.scratch is not None and (isinstance(recipe.vision, HostVision) or recipe.host.quantization):
        raise ValueError(
            "host.scratch needs vision.kind: encoder or none, and no host.quantization; set both, or leave it out"
        )
    if recipe.host.scratch is not None and not any(part.lora is None for part in hosts.values()):
        raise ValueError(
            "host.scratch starts from random weights, and no stage trains them; add train: {host: 1.0e-3} to a stage"
        )
    lasts = {stage.name: stage.train.vision.last for stage in stages if stage.train.vision is not None}
    if len(set(lasts.values())) > 1:
        raise ValueError(f"the stages {', '.join(lasts)} train other blocks of the encoder; give all the same last")
