"""What the page may ask, checked before anything is computed.

Knows: pydantic. No field is a path or an address; pictures, runs and findings are named by what the studio called them.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from moai.errors import PromptError
from moai.types import IMAGE, Conversation, Turn
from moai_studio.sessions import Session

MAX_TEXT = 256  # characters of a label, as in experts' findings
Name = Annotated[str, Field(max_length=64)]
Part = Annotated[float, Field(ge=0, le=1)]


class Message(BaseModel):
    """Refuse what is not named."""

    model_config = ConfigDict(extra="forbid", strict=True, allow_inf_nan=False)


class Edit(Message):
    """Change one finding of a picture.

    Attributes:
        do: ``write`` another label, predicate, print or sentence; ``move`` to a box; ``delete``; ``add`` a thing or
            print.
        finding: the id of the finding; empty for ``add``.
        text: for ``write`` and ``add``.
        box: for ``move`` and ``add``.
        kind: what is added.
    """

    do: Literal["write", "move", "delete", "add"]
    finding: Annotated[str, Field(max_length=300)] = ""
    text: Annotated[str, Field(max_length=MAX_TEXT)] = ""
    box: Annotated[list[Part], Field(min_length=4, max_length=4)] | None = None
    kind: Literal["object", "text"] = "object"


class PageTurn(Message):
    """Hold one turn of the page's conversation, with the pictures that it shows."""

    role: Literal["user", "assistant"]
    text: Annotated[str, Field(max_length=4000)]
    pictures: Annotated[list[Name], Field(max_length=8)] = []


class Perceive(Message):
    """Ask for the findings of one picture, anew where ``again`` says so."""

    run: Name
    picture: Name
    again: bool = False


class Ask(Message):
    """Ask for the answer to a conversation, whose findings may be edited.

    ``instead`` is an answer whose probability is wanted beside that of the new one.
    """

    run: Name
    turns: Annotated[list[PageTurn], Field(min_length=1, max_length=32)]
    edits: Annotated[dict[Name, Annotated[list[Edit], Field(max_length=500)]], Field(max_length=12)] = {}
    derive: bool = True
    instead: Annotated[str, Field(max_length=2000)] | None = None
    max_new_tokens: Annotated[int, Field(ge=1, le=256)] = 32


class RestsOn(Ask):
    """Ask for what an answer rests on."""

    answer: Annotated[str, Field(min_length=1, max_length=2000)]


class Edited(Message):
    """Ask for a picture's findings after edits."""

    run: Name
    picture: Name
    edits: Annotated[list[Edit], Field(max_length=500)]
    derive: bool = True


class Skip(Message):
    """Stop a work, or one expert of it."""

    work: Name
    expert: Annotated[str, Field(max_length=200)] | None = None


T = TypeVar("T", bound=Message)


def parse(kind: type[T], body: bytes) -> T:
    """Parse the JSON of a request.

    Raises:
        PromptError: it is not what the page sends.
    """
    try:
        return kind.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"])[:120]
        raise PromptError(f"the request is not one of the page's: {where or 'JSON'}: {first['msg'][:160]}") from error


def conversation(ask: Ask, session: Session) -> tuple[Conversation, list[str]]:
    """Build the conversation of a request, and the ids of its pictures in order; each is shown once, where it first is.

    Raises:
        PromptError, ImageError: no text, or a picture that is not held.
    """
    shown: list[str] = []
    turns = []
    for turn in ask.turns:
        new = [name for name in dict.fromkeys(turn.pictures) if name not in shown] if turn.role == "user" else []
        shown += new
        turns.append(Turn(turn.role, (*(IMAGE for _ in new), turn.text)))
    if turns[-1].role != "user" or not turns[-1].text.strip():
        raise PromptError("the question is empty; ask something about the picture")
    return Conversation(tuple(turns), tuple(session.picture(name).image for name in shown)), shown
