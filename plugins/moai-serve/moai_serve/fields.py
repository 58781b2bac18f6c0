"""The body of a request as OpenAI's chat API has it, checked field by field.

Knows: pydantic, and what this server does with each field: it heeds it, ignores it, or refuses it with a sentence.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, Tag, ValidationError

from moai.errors import nearest
from moai_serve.errors import ApiError, refused, shorten

Text = Annotated[str, Field(max_length=1_000_000)]
Stop = Annotated[str, Field(max_length=256)]
# Tags of a union's branches, in brackets so that no field has such a name. Of a value that is no list, texts are asked.
ONE, MANY = "[one]", "[many]"


def _one_or_many(value: Any) -> str:
    return MANY if isinstance(value, list) else ONE


IGNORED = ("metadata", "parallel_tool_calls", "prompt_cache_key", "safety_identifier", "service_tier", "store", "user")
# What is refused unless it asks for nothing: field -> the values that ask for nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "audio": (None,),
    "frequency_penalty": (None, 0),
    "function_call": (None, "none", "auto"),
    "functions": (None, []),
    "logit_bias": (None, {}),
    "modalities": (None, ["text"]),
    "prediction": (None,),
    "presence_penalty": (None, 0),
    "reasoning_effort": (None, "none"),
    "response_format": (None, {"type": "text"}),
    "tool_choice": (None, "none", "auto"),
    "tools": (None, []),
    "verbosity": (None,),
    "web_search_options": (None,),
}


class Strict(BaseModel):
    """A JSON object without other fields, and without values of another type."""

    model_config = ConfigDict(strict=True, extra="forbid", allow_inf_nan=False)


class ImageURL(Strict):
    """Where a picture is; ``detail`` is ignored, as every picture is perceived whole."""

    url: str
    detail: Any = None


class TextPart(Strict):
    """Text among the parts of a message."""

    type: Literal["text"]
    text: Text


class ImagePart(Strict):
    """A picture among the parts of a message."""

    type: Literal["image_url"]
    image_url: ImageURL


def _kind(part: Any) -> str | None:
    kind = part.get("type") if isinstance(part, dict) else None
    return f"[{kind}]" if kind in ("text", "image_url") else None


Part = Annotated[Annotated[TextPart, Tag("[text]")] | Annotated[ImagePart, Tag("[image_url]")], Discriminator(_kind)]


class Message(Strict):
    """One turn; ``name`` is ignored."""

    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[Annotated[Text, Tag(ONE)] | Annotated[list[Part], Tag(MANY)], Discriminator(_one_or_many)]
    name: Any = None
    refusal: None = None


class StreamOptions(Strict):
    """What a stream ends with."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class Extension(Strict):
    """Our own field ``moai``: which experts perceive, and whether masks are sent back."""

    experts: list[Annotated[str, Field(max_length=200)]] | None = Field(None, max_length=100)
    masks: bool = False


Stops = Annotated[
    Annotated[Stop, Tag(ONE)] | Annotated[list[Stop], Field(max_length=4), Tag(MANY)], Discriminator(_one_or_many)
]


class ChatRequest(Strict):
    """Hold the fields that are heeded."""

    model: Annotated[str, Field(max_length=1000)]
    messages: Annotated[list[Message], Field(min_length=1)]
    temperature: Annotated[float, Field(ge=0, le=2)] | None = None
    top_p: Annotated[float, Field(gt=0, le=1)] | None = None
    n: Annotated[int, Field(ge=1)] | None = None
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Stops | None = None
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Field(ge=0, le=20)] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    moai: Extension = Extension()


def read_fields(given: Any) -> ChatRequest:
    """Check what JSON said.

    Raises:
        ApiError: the first field that is wrong, unknown, or not supported, in a sentence.
    """
    if not isinstance(given, dict):
        raise refused('the body has to be a JSON object, such as {"model": .., "messages": [..]}', "invalid_body")
    for name, values in NEUTRAL.items():
        if given.get(name) not in values:
            raise refused(f"this server does not support '{name}'; leave it out", "unsupported_parameter", name)
    heeded = {name: value for name, value in given.items() if name not in IGNORED and name not in NEUTRAL}
    try:
        found = ChatRequest.model_validate(heeded)
    except ValidationError as error:
        raise _sentence(error) from None
    if found.top_logprobs and not found.logprobs:
        raise refused("top_logprobs needs logprobs to be true; set it, too", "invalid_value", "top_logprobs")
    if found.stream_options is not None and not found.stream:
        raise refused("stream_options needs stream to be true; set it, too", "invalid_value", "stream_options")
    if None not in (found.max_tokens, found.max_completion_tokens) and found.max_tokens != found.max_completion_tokens:
        raise refused("max_tokens and max_completion_tokens differ; give one of them", "invalid_value", "max_tokens")
    if any(stop == "" for stop in ([found.stop] if isinstance(found.stop, str) else found.stop or ())):
        raise refused("stop holds an empty text, which would end every answer; leave it out", "invalid_value", "stop")
    return found


def _sentence(error: ValidationError) -> ApiError:
    """The first problem; a union's tags are no part of its place."""
    worst = error.errors(include_url=False, include_context=False, include_input=False)[0]
    steps = [str(step) for step in worst["loc"] if not str(step).startswith("[")]
    place, param = (".".join(shorten(step, 40) for step in part) for part in (steps, steps[:1]))
    if worst["type"] == "extra_forbidden":
        known = [*ChatRequest.model_fields, *NEUTRAL, *IGNORED]
        hint = nearest(place, known) if len(steps) == 1 else "; leave it out"
        return refused(f"unknown field '{place}'{hint}", "unknown_parameter", param)
    if worst["type"] == "missing":
        return refused(f"the field '{place}' is missing; add it", "missing_required_parameter", param)
    if worst["type"] == "union_tag_not_found":
        return refused(f"{place}: a part is of type 'text' or 'image_url'; leave others out", "invalid_value", param)
    said = "input should be an object" if worst["type"] == "model_type" else worst["msg"]
    return refused(f"{place}: {said[:1].lower()}{said[1:]}", "invalid_value", param)
