"""The recipe's schema: every key that a YAML file may hold, with its default; unknown keys are refused.

Knows: pydantic and names only, so that a recipe can be checked without loading torch. ``recipe_file`` reads the YAML.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictBool, model_validator

from moai.model.arithmetic import OURS
from moai.recipe.native_vision import problem, settle


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Host(Section):
    """The frozen language model."""

    reference: str  # hub id, local path, or wheel:<distribution>
    sees: StrictBool = False  # a vision-language model with its own eyes; vision and connector are then left out
    revision: str | None = None
    dtype: Literal["bfloat16", "float16", "float32"] = "bfloat16"
    quantization: Literal["nf4", "int8"] | None = None  # of the frozen weights, by bitsandbytes
    attention: str = "sdpa"  # of transformers; "eager" is faster for short prompts on CPU
    chat_template: str = "host"  # "host", "question_answer", or a Jinja template
    image_token: str | None = None  # a special token of the host that its prompts never use; found when left out


class Vision(Section):
    """The frozen vision encoder."""

    reference: str | None = None
    revision: str | None = None
    architecture: str | None = None  # a timm model name; left out, reference is loaded through transformers
    image_size: int = Field(224, ge=8)
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    layer: int | None = None
    drop_first: int = Field(0, ge=0)


class Connector(Section):
    """Vision width to decoder width."""

    kind: str = "mlp"
    options: dict[str, Any] = {}


class PerceptionSection(Section):
    """Which experts look at every image, and how their words reach the model."""

    experts: tuple[str, ...] = ()
    options: dict[str, dict[str, Any]] = {}  # expert name -> its options
    language: str = "en"
    style: str = "paper"  # of the verbalization: "paper", "compact", or a plugin's own
    through: Literal["mixers", "prompt"] = "mixers"  # "prompt": as plain text in the prompt, the baseline to beat
    context_layer: int | None = Field(None, ge=1)  # words as the host's layer knows them, not their embeddings alone
    fact_context: bool = False  # each word also carries the mean of its fact's words; for the style "compact"
    word_order: bool = False  # these means, and those of questions, also say in which order the words stand
    panoptic_map: bool = True  # the map's own tokens, when a panoptic expert answered
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
    sharpness: float | None = Field(4.0, gt=0)  # null with the published arithmetic
    match_init: bool = False
    none_token: bool = False
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
    image_dropout: float = Field(0.5, ge=0, le=1)  # share of samples whose image features are zeroed
    train_connector: bool = True  # false: frozen, and no backward pass runs through the host below the first mixer
    kinds: dict[str, Share] = {}  # answer type -> share of its samples that an epoch uses, in [0, 1]; others use all
    balance: bool = False  # as many "yes" as "no" for every question text: what the question gives away is gone


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
    guide: float = Field(0.0, ge=0)  # weight of the loss that guides attention to the words which say the answer
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
    vision: Vision | None
    connector: Connector | None = Connector()
    perception: PerceptionSection = PerceptionSection()
    compressor: CompressorSection = CompressorSection()
    mixer: MixerSection = MixerSection()
    data: Data = Data()
    training: Training = Training()
    evaluation: Evaluation = Evaluation()

    @model_validator(mode="before")
    @classmethod
    def _settle_sharpness(cls, data: Any) -> Any:
        """Leave the cosine out of the published arithmetic where the recipe does not name it."""
        if isinstance(data, dict) and data.get("arithmetic") == "published":
            mixer = data.get("mixer") or {}
            if isinstance(mixer, dict):
                return {**data, "mixer": {"sharpness": None, **mixer}}
        return data

    @model_validator(mode="before")
    @classmethod
    def _settle_who_sees(cls, data: Any) -> Any:
        """``host.sees: true`` leaves out what only an encoder of ours has."""
        steps = {name: Training.model_fields[name].default for name in ("step1", "step2")}
        plain = {name: step.model_dump(exclude_unset=True) for name, step in steps.items()}
        return settle(data, plain) if isinstance(data, dict) else data

    @model_validator(mode="after")
    def _one_of_them_sees(self) -> Recipe:
        """Either the host, or an encoder in front of it."""
        if found := problem(self):
            raise ValueError(found)
        return self

    @model_validator(mode="after")
    def _something_trains(self) -> Recipe:
        """Without mixers the connector is all that learns."""
        parts = {"step1": self.training.step1, "step2": self.training.step2}
        for name, part in parts.items():
            if self.mixer.layers == () and part.steps and not part.train_connector:
                raise ValueError(f"without mixers, training.{name}.train_connector: false leaves nothing to train")
        return self

    @model_validator(mode="after")
    def _published_has_it(self) -> Recipe:
        """The published arithmetic has none of what we added to the mixers, and its compressed tokens are no words."""
        ours = {f"mixer.{key}": getattr(self.mixer, key) for key in OURS}
        ours |= {"training.guide": self.training.guide, "training.align.steps": self.training.align.steps}
        if self.arithmetic == "published" and (extra := [key for key, value in ours.items() if value]):
            raise ValueError(
                f"arithmetic: published has no {', '.join(extra)}; use arithmetic: moai, or set it to false, 0 or null"
            )
        return self

    @model_validator(mode="after")
    def _can_be_guided(self) -> Recipe:
        """Attention can be guided only where mixers read words."""
        if not (self.training.guide or self.training.align.steps):
            return self
        wanted = {
            "perception.experts": bool(self.perception.experts),
            "perception.through: mixers": self.perception.through == "mixers",
            "mixer.layers": self.mixer.layers is None or bool(self.mixer.layers),
        }
        if missing := [key for key, there in wanted.items() if not there]:
            raise ValueError(f"training.guide and training.align need {', '.join(missing)}; or set both to 0")
        return self

    def to_yaml(self) -> str:
        """The resolved recipe, as it is kept in the run folder."""
        return yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True)
