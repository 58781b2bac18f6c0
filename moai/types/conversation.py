"""Conversations with images, and the samples that data sets make of them.

Knows: plain data; images stay as they are given (paths, bytes, arrays, pictures) until a batch is built.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from moai.errors import PromptError
from moai.types.perception import Perception


class Placeholder(Enum):
    """The type of :data:`IMAGE`."""

    IMAGE = "image"


IMAGE: Final = Placeholder.IMAGE
"""Marks the place of one image in a turn's content."""

ROLES = ("system", "user", "assistant", "text")
Content = tuple[str | Placeholder, ...]


@dataclass(frozen=True)
class Turn:
    """One turn of a conversation.

    Attributes:
        role: ``"system"``, ``"user"`` or ``"assistant"``, which the host's chat template writes; or ``"text"``, a
            document that no template touches.
        content: texts and :data:`IMAGE` marks in any order; a single text may stand alone.

    Raises:
        PromptError: an unknown role, or content of another type.
    """

    role: str
    content: Content

    if TYPE_CHECKING:  # a single text may stand alone, and is a tuple afterwards

        def __init__(self, role: str, content: Content | str | Placeholder) -> None: ...

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise PromptError(f"a turn's role is one of {', '.join(ROLES)}, not {self.role!r}")
        content = (self.content,) if isinstance(self.content, (str, Placeholder)) else self.content
        if not isinstance(content, (tuple, list)) or not all(isinstance(p, (str, Placeholder)) for p in content):
            raise PromptError("a turn's content is a tuple of texts and moai.IMAGE marks; put the images into images=")
        object.__setattr__(self, "content", tuple(part for part in content if part != ""))

    @property
    def text(self) -> str:
        """All texts of the turn, joined."""
        return "".join(part for part in self.content if isinstance(part, str))

    @property
    def images(self) -> int:
        """The number of image marks."""
        return sum(part is IMAGE for part in self.content)


@dataclass(frozen=True)
class Conversation:
    """Turns and their images: a question, a dialogue, or an interleaved document.

    Attributes:
        turns: in order.
        images: one for each :data:`IMAGE` mark, in the order of the marks; whatever ``moai.read_image`` takes.
        loss: what training learns: ``"assistant"``, the assistant's turns, or ``"all"``, every token but images.

    Raises:
        PromptError: no turn, or another number of images than of marks.
    """

    turns: tuple[Turn, ...]
    images: tuple[Any, ...] = ()
    loss: Literal["assistant", "all"] = "assistant"

    def __post_init__(self) -> None:
        _check_list(self.images)
        turns, images = tuple(self.turns), tuple(self.images)
        if not turns or not all(isinstance(turn, Turn) for turn in turns):
            raise PromptError("a conversation is made of one Turn or more")
        if self.loss not in ("assistant", "all"):
            raise PromptError(f"loss is 'assistant' or 'all', not {self.loss!r}")
        if len({turn.role == "text" for turn in turns}) > 1:
            raise PromptError("a conversation has either turns of role 'text' or turns of a dialogue, not both")
        marks = sum(turn.images for turn in turns)
        if marks != len(images):
            raise PromptError(
                f"{len(images)} images for {marks} image marks; put moai.IMAGE into a turn's content for each image"
            )
        object.__setattr__(self, "turns", turns)
        object.__setattr__(self, "images", images)

    @classmethod
    def ask(cls, question: str, images: Sequence[Any] = (), answer: str | None = None) -> Conversation:
        """Build one question with its images before it, and its answer where there is one."""
        _check_list(images)
        turns = (Turn("user", (*(IMAGE for _ in images), question)),)
        return cls(turns if answer is None else (*turns, Turn("assistant", answer)), tuple(images))

    @classmethod
    def of(cls, turns: Turns, images: Sequence[Any] = ()) -> Conversation:
        """Build a conversation from one, from its turns, or from messages as transformers takes them.

        Raises:
            PromptError: images beside a conversation, which has its own, or as the conversation itself.
        """
        if isinstance(turns, Conversation):
            if len(images):
                raise PromptError("a conversation has its own images; leave images out")
            return turns
        messages = [turn for turn in turns if isinstance(turn, Mapping)]
        if messages and len(messages) == len(turns):
            return cls.from_messages(messages, images)
        _check_list(images)
        plain: Any = tuple(turns)  # what is no turn is refused
        return cls(plain, tuple(images))

    @classmethod
    def from_messages(cls, messages: Sequence[Mapping[str, Any]], images: Sequence[Any] = ()) -> Conversation:
        """Build a conversation from messages as transformers' chat templates take them.

        Args:
            messages: ``{"role": .., "content": .., }``; the content a text, or items
                ``{"type": "text", "text": ..}`` and ``{"type": "image"}``. An image item may hold its image as
                ``image``, ``url`` or ``path``.
            images: those of the image items that hold none, in order.

        Raises:
            PromptError: another type of content (audio, video), or images that do not match the items.
        """
        _check_list(images)
        turns, found, rest = [], [], iter(images)
        for message in messages:
            content: list[str | Placeholder] = []
            items = message["content"]
            for item in [{"type": "text", "text": items}] if isinstance(items, str) else items:
                if item["type"] == "text":
                    content.append(item["text"])
                elif item["type"] in ("image", "image_url"):
                    content.append(IMAGE)
                    held = [item[name] for name in ("image", "url", "path") if item.get(name) is not None]
                    found += held[:1] or [image for image in [next(rest, None)] if image is not None]
                else:
                    raise PromptError(f"a message holds {item['type']}, and moai takes text and images; leave it out")
            turns.append(Turn(message["role"], tuple(content)))
        return cls(tuple(turns), (*found, *rest))

    @property
    def prompt(self) -> Conversation:
        """The conversation without the answer that ends it; the whole one where none does."""
        if self.turns[-1].role != "assistant":
            return self
        turns = self.turns[:-1]
        return Conversation(turns, self.images[: sum(turn.images for turn in turns)], self.loss)

    @property
    def question(self) -> str:
        """The text of the last turn of the prompt."""
        return self.prompt.turns[-1].text

    @property
    def answer(self) -> str:
        """The text of the assistant turn that ends the conversation; empty without one."""
        return self.turns[-1].text if self.turns[-1].role == "assistant" else ""


Turns = Conversation | Sequence[Turn] | Sequence[Mapping[str, Any]]
"""Whatever :meth:`Conversation.of` takes."""


def _check_list(images: Any) -> None:
    """Refuse one image in the place of a list; a path would be taken for a list of letters."""
    if isinstance(images, (str, bytes, bytearray, Path)) or not isinstance(images, Sequence):
        raise PromptError(f"images is a list with one image per mark, not one {type(images).__name__}")


@dataclass(frozen=True)
class Choice:
    """One answer of a sample that is answered by choosing, and the prompt in which it is scored.

    Attributes:
        name: the answer that it stands for.
        turns: the prompt, up to where ``word`` follows.
        images: numbers of the sample's images, from 0, one per :data:`IMAGE` mark of ``turns``.
        word: whose probability after the prompt is the score; the choice with the largest is the answer.
    """

    name: str
    turns: tuple[Turn, ...]
    images: tuple[int, ...]
    word: str


@dataclass(frozen=True)
class Sample:
    """A conversation, and what evaluation and training need beside it.

    Attributes:
        id: unique in its data set.
        conversation: with the answer as its last turn, where there is one.
        image_ids: one per image; two are equal exactly when the images are the same. Without images one per truth.
        kind: answer type, by which accuracy is reported.
        answers: accepted answers; left out, the conversation's.
        truths: what perfect experts would return, one perception per image, where the data set has it. In a sample
            without images they are the perception: nothing is read or perceived, see :attr:`perceived`.
        language: of the question.
        question_translation: the question in the language of the perceptions, where it is asked in another. The model
            never gets it; attention supervision finds by it which words are asked for.
        choices: answers that are scored by the probability of a word, instead of an answer that is generated.

    Raises:
        PromptError: another number of image ids than of images, or without images than of truths; or choices of one
            name or of images that are not there.
    """

    id: str
    conversation: Conversation
    image_ids: tuple[str, ...] = ()
    kind: str = ""
    answers: tuple[str, ...] = ()
    truths: tuple[Perception, ...] | None = None
    language: str = "en"
    question_translation: str | None = None
    choices: tuple[Choice, ...] = ()

    def __post_init__(self) -> None:
        images = len(self.conversation.images)
        self._check_choices(images)
        count, of = (images, "images") if images else (len(self.truths or ()), "truths and no image")
        for name, given in (("image_ids", self.image_ids), ("truths", self.truths)):
            if given is not None and (isinstance(given, str) or len(given) != count):
                raise PromptError(f"sample '{self.id}' has {count} {of} and {name} for another number of them")
        if not self.answers and self.answer:
            object.__setattr__(self, "answers", (self.answer,))

    @classmethod
    def from_question(
        cls,
        id: str,
        image: Any,
        image_id: str,
        question: str,
        answer: str,
        kind: str = "",
        truth: Perception | None = None,
        language: str = "en",
        question_translation: str | None = None,
    ) -> Sample:
        """Build a sample of one question about one image, or, with ``image`` None, about a truth without a picture.

        Then ``image_id`` names the truth: two questions about one scene have the same.

        Raises:
            PromptError: neither an image nor a truth.
        """
        if image is None and truth is None:
            raise PromptError(f"sample '{id}' has neither an image nor a truth; give one of both")
        conversation = Conversation.ask(question, () if image is None else (image,), answer)
        truths = None if truth is None else (truth,)
        return cls(id, conversation, (image_id,), kind, (answer,), truths, language, question_translation)

    def _check_choices(self, images: int) -> None:
        if len({choice.name for choice in self.choices}) < len(self.choices) or len(self.choices) == 1:
            raise PromptError(f"sample '{self.id}' needs two choices or more, each with a name of its own")
        for choice in self.choices:
            marks = sum(turn.images for turn in choice.turns)
            if marks != len(choice.images) or not all(0 <= number < images for number in choice.images):
                raise PromptError(
                    f"choice '{choice.name}' of sample '{self.id}' has {marks} image marks for the images "
                    f"{list(choice.images)} of {images}; name one of the sample's images for each mark"
                )

    @property
    def images(self) -> tuple[Any, ...]:
        """The conversation's images."""
        return self.conversation.images

    @property
    def perceived(self) -> dict[str, Perception]:
        """What serves as the perception of a sample without images: id -> truth; empty for a sample with images.

        A sample with images is perceived by experts; its truths serve the condition ``oracle`` of an evaluation alone.
        """
        return {} if self.images else dict(zip(self.image_ids, self.truths or (), strict=True))

    @property
    def prompts(self) -> list[tuple[Conversation, tuple[str, ...]]]:
        """Each prompt that an answer takes, with the ids of what is perceived in it: one, or one for each choice."""
        if not self.choices:
            prompt = self.conversation.prompt
            return [(prompt, self.image_ids[: len(prompt.images)] if self.images else self.image_ids)]
        return [
            (
                Conversation(one.turns, tuple(self.images[n] for n in one.images)),
                tuple(self.image_ids[n] for n in one.images) if self.images else self.image_ids,
            )
            for one in self.choices
        ]

    @property
    def question(self) -> str:
        """The text of the last turn that asks."""
        return self.conversation.question

    @property
    def answer(self) -> str:
        """The text of the answer that ends the conversation."""
        return self.conversation.answer
