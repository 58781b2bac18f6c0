"""The stages of a recipe: what trains at which rate, for how long, and by which objective; and what they share.

Knows: pydantic and names only, as ``sections`` does. Which stages fit a recipe's model is checked in ``stage_rules``.
"""

from __future__ import annotations

import math
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, PlainValidator

from moai.recipe.sections import Section


def _usable_share(share: float) -> float:
    if share and not 0.001 <= share <= 1:
        raise ValueError("a share is 0, or between 0.001 and 1")
    return share


Share = Annotated[float, AfterValidator(_usable_share)]


class Schedule(Section):
    """How the learning rates of a stage rise and fall: factors on the rates that its parts name."""

    kind: Literal["cosine", "linear", "constant"] = Field(
        "cosine", description="Form of the fall from the full rate to `final_rate`; `constant` does not fall."
    )
    warmup: int = Field(20, ge=0, description="Number of steps over which the rate rises from nothing.")
    final_rate: float = Field(0.05, ge=0, le=1, description="The last step's rate over the full one.")


def _as_part(value: Any) -> Any:
    """Read a number, or ``mm1``, as the rate of a part."""
    bare = value == "mm1" or (isinstance(value, (int, float)) and not isinstance(value, bool))
    return {"rate": value} if bare else value


def _as_rate(value: Any) -> Any:
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    if value == "mm1" or (number and 0 < value < math.inf):
        return float(value) if number else value
    raise ValueError("a rate is a number above 0, or mm1")


Rate = Annotated[float | Literal["mm1"], PlainValidator(_as_rate, json_schema_input_type=float | Literal["mm1"])]


class PartSection(Section):
    """A part of the model that a stage trains; a number alone is its `rate`."""

    rate: Rate = Field(description="Learning rate, or `mm1` for MM1's law of the host's size (docs/training.md).")


class HostPart(PartSection):
    """The host as a part that a stage trains: all its weights, or low-rank adapters beside them."""

    lora: int | None = Field(
        None, ge=1, description="Rank of low-rank adapters (peft), whose weights alone train; left out, the host's do."
    )
    targets: tuple[str, ...] = Field(
        (), description="Names of the linear layers that get adapters; left out, all in the decoder's layers."
    )


class VisionPart(PartSection):
    """The vision encoder as a part that a stage trains."""

    last: int | None = Field(
        None, ge=1, description="Number of its last blocks that train, with what follows them; left out, all of it."
    )


def _part(section: type[PartSection]) -> Any:
    given = BeforeValidator(_as_part, json_schema_input_type=section | float | Literal["mm1"])
    return Annotated[section, given] | None


class TrainSection(Section):
    """The parts that a stage trains, each with its learning rate; a part that is left out, or `null`, does not."""

    connector: _part(PartSection) = Field(None, description="The connector of a vision encoder.")
    compressor: _part(PartSection) = Field(None, description="The resampler of auxiliary tokens.")
    mixers: _part(PartSection) = Field(None, description="The mixers, their gates aside.")
    gates: _part(PartSection) = Field(None, description="The mixers' gates.")
    host: _part(HostPart) = Field(None, description="The language model, or vision-language model.")
    vision: _part(VisionPart) = Field(None, description="The vision encoder.")

    def parts(self) -> dict[str, PartSection]:
        """Return the parts that train, by name."""
        found = {name: getattr(self, name) for name in type(self).model_fields}
        return {name: part for name, part in found.items() if part is not None}


class Stage(Section):
    """One stage of training: what trains at which rate, for how long, and by which objective."""

    name: str = Field(
        pattern=r"^[A-Za-z][A-Za-z0-9_-]*$",
        description="Name of the stage; `stages.NAME.KEY=VALUE`, and recipes that extend this one, change it by that.",
    )
    steps: int | None = Field(None, ge=1, description="Number of optimisation steps; give this or `epochs`.")
    epochs: int | None = Field(None, ge=1, description="Number of passes through the data; give this or `steps`.")
    objective: Literal["answers", "attention"] = Field(
        "answers",
        description="`answers` teaches to answer; `attention` teaches mixers what to attend to, on cached states.",
    )
    samples: int | None = Field(
        None,
        ge=1,
        description="Number of samples that `objective: attention` draws from, at random; left out, it draws from "
        "those that the other stages use.",
    )
    routing: Literal["random_module", "gates"] = Field(
        "gates", description="`random_module` draws one module per stream and mixer; `gates` blends all three."
    )
    continues: bool = Field(
        False,
        description="Whether the stage goes on with the optimizer and the schedule of the one before, as one plan.",
    )
    train: TrainSection | None = Field(
        None,
        description="The parts that train; left out, connector, mixers and gates at 1e-3 and the compressor at 1e-4.",
    )
    connector: dict[str, bool] = Field(
        {},
        description="Optional parts of the connector by name, and whether they run and train in this stage, such as "
        "`{mixture: false}`; those that are not named do.",
    )
    schedule: Schedule | None = Field(None, description="Schedule; keys that are left out are those of `training`.")
    weight_decay: float | None = Field(None, ge=0, description="Weight decay; left out, that of `training`.")
    batch_size: int | None = Field(None, ge=1, description="Samples of a step; left out, that of `training`.")
    accumulation: int | None = Field(
        None, ge=1, description="Number of parts in which a step's samples run; left out, that of `training`."
    )
    image_dropout: float | None = Field(
        None, ge=0, le=1, description="Share of samples without image features; left out, 0.5 with an encoder, else 0."
    )
    sampling_rate_by_type: dict[str, Share] = Field(
        {}, description="Share of an answer type's samples that an epoch uses; 1 for types that are not named."
    )
    balance_yes_no: bool = Field(
        False, description='Whether every question text has as many samples with "yes" as with "no".'
    )


# MoAI's two steps: first one module of three at random, then all three blended by gates.
TWO_STEPS = (
    Stage(name="modules", steps=100, routing="random_module"),
    Stage(name="gates", steps=160, continues=True),
)


class Training(Section):
    """What all stages have in common: batches, rates, checkpoints, and the arguments of transformers' Trainer."""

    batch_size: int = Field(16, ge=1, description="Samples of an optimisation step, over all processes.")
    accumulation: int = Field(
        1, ge=1, description="Number of parts in which a step's samples run, one after another, to save memory."
    )
    mixed_lengths: bool = Field(
        False, description="Whether a batch mixes lengths up to a factor of two, instead of sorting by length."
    )
    packing: bool = Field(
        False,
        description="Whether a step's samples without images are put together into rows as long as the host's context.",
    )
    schedule: Schedule = Field(Schedule(), description="How the learning rates rise and fall.")
    weight_decay: float = Field(0.0, ge=0, description="Weight decay of AdamW.")
    clip: float = Field(1.0, gt=0, description="Limit of the gradient's norm.")
    attention_supervision: float = Field(
        0.0, ge=0, description="Weight of the loss on attention to the words that hold the answer."
    )
    perception_dropout: float = Field(
        0.1, ge=0, le=1, description="Share of samples without any perception, which keeps the condition `off` fair."
    )
    checkpoint_every: int = Field(50, ge=1, description="Steps between checkpoints.")
    monitor_every: int = Field(40, ge=1, description="Steps between validation losses.")
    threads: int | None = Field(
        None, ge=1, description="Number of CPU threads, on which a run's exact numbers depend; left out, torch's."
    )
    trainer: dict[str, Any] = Field(
        {}, description="Further arguments of transformers' `TrainingArguments`, by name, such as `bf16: true`."
    )
