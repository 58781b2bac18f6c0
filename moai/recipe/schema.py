"""The recipe: its sections together, and which values do not fit each other; unknown keys are refused.

Knows: pydantic and names only, so that a recipe can be checked without loading torch. ``loading`` reads the YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, model_validator

from moai.model.arithmetic import OURS
from moai.recipe.sections import (
    CompressorSection,
    Data,
    EncoderVision,
    Evaluation,
    Host,
    HostVision,
    MixerSection,
    NoVision,
    PerceptionSection,
    Section,
)
from moai.recipe.stage_rules import attention_stages, settled
from moai.recipe.stages import TWO_STEPS, Stage, Training


class Recipe(Section):
    """Everything that makes a run."""

    version: Literal[1] = Field(description="Version of this format.")
    name: str = Field(description="Name of the run's folder; left out in a file, the file's own.")
    seed: int = Field(0, description="Seed of every random draw.")
    start: str | None = Field(
        None,
        min_length=1,
        description="Run that the model starts as, by folder or hub id: its connector, compressor and mixers, and what "
        "trained of its host and encoder; parts that it has not start as without it.",
    )
    arithmetic: Literal["moai", "published"] = Field(
        "moai", description="Arithmetic of mixers and compressor: ours, or that of the published code."
    )
    host: Host = Field(description="The frozen language model, or vision-language model.")
    vision: Annotated[EncoderVision | HostVision | NoVision, Field(discriminator="kind")] = Field(
        description="Where image tokens come from."
    )
    perception: PerceptionSection = Field(PerceptionSection(), description="The experts, and their words.")
    compressor: CompressorSection = Field(CompressorSection(), description="The resampler of auxiliary tokens.")
    mixer: MixerSection = Field(MixerSection(), description="The mixers in the host's layers.")
    data: Data = Field(Data(), description="The training data.")
    training: Training = Field(Training(), description="What all stages of training have in common.")
    stages: tuple[Stage, ...] = Field(TWO_STEPS, min_length=1, description="The stages of training, in their order.")
    evaluation: Evaluation = Field(Evaluation(), description="The evaluation after training.")

    @model_validator(mode="before")
    @classmethod
    def _settle_qk_norm(cls, data: Any) -> Any:
        """Leave the cosine out of the published arithmetic where the recipe does not name it."""
        if isinstance(data, dict) and data.get("arithmetic") == "published":
            mixer = data.get("mixer") or {}
            if isinstance(mixer, dict):
                return {**data, "mixer": {"qk_norm_scale": None, **mixer}}
        return data

    @model_validator(mode="after")
    def _stages_fit(self) -> Recipe:
        """Fill in what stages leave out, and refuse stages that do not fit the model or each other."""
        object.__setattr__(self, "stages", settled(self))
        return self

    @model_validator(mode="after")
    def _published_has_it(self) -> Recipe:
        """The published arithmetic has none of what we added to the mixers, and its compressed tokens are no words."""
        ours = {f"mixer.{key}": getattr(self.mixer, key) for key in OURS}
        ours["training.attention_supervision"] = self.training.attention_supervision
        ours |= {f"stages.{stage.name}.objective: attention": True for stage in attention_stages(self)}
        if self.arithmetic == "published" and (extra := [key for key, value in ours.items() if value]):
            raise ValueError(
                f"arithmetic: published has no {', '.join(extra)}; use arithmetic: moai, or set it to false, 0 or null"
            )
        return self

    @model_validator(mode="after")
    def _words_are_of_facts(self) -> Recipe:
        """What compares words has to know which belong together, and who reads what comes of it."""
        facts = {"perception.fact_context: true": self.perception.fact_context}
        needed = {
            "copy_next": {"mixer.answer_tokens: true": self.mixer.answer_tokens, **facts},
            "match_words": {"mixer.question_context": self.mixer.question_context, **facts},
        }
        for key, others in needed.items():
            if getattr(self.mixer, key) and (missing := [name for name, there in others.items() if not there]):
                raise ValueError(f"mixer.{key} needs {' and '.join(missing)}")
        return self

    @model_validator(mode="after")
    def _attention_can_be_supervised(self) -> Recipe:
        """Attention can be supervised only where mixers attend to words."""
        if not (self.training.attention_supervision or attention_stages(self)):
            return self
        wanted = {
            "perception.experts": bool(self.perception.experts),
            "perception.inject: mixers": self.perception.inject == "mixers",
            "mixer.layers": self.mixer.layers is None or bool(self.mixer.layers),
        }
        if missing := [key for key, there in wanted.items() if not there]:
            needed = ", ".join(missing)
            raise ValueError(
                f"training.attention_supervision and stages with objective: attention need {needed}; "
                "set it to 0, and drop them"
            )
        return self

    def to_yaml(self) -> str:
        """The resolved recipe, as it is kept in the run folder."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
