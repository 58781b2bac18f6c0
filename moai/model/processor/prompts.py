"""Encode conversations as token ids, with the labels that training learns.

Knows: tokenizers and chat templates. Text from images, questions and answers never becomes a control token. In the ids
an image is one token, the placeholder; a batch makes room for as many as the image has.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from moai.errors import PromptError
from moai.model.processor.untrusted_text import plain_tokenizer
from moai.types import IMAGE, Turn

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

IGNORED = -100  # label of a position without a loss
PROBES = ("Zebra quartz", "7 & vexing")  # two answers that begin and end with different tokens


class Encoded(NamedTuple):
    """One conversation as tokens, all three of one length."""

    ids: tuple[int, ...]
    labels: tuple[int, ...]  # ids where training takes a loss, IGNORED elsewhere
    prompt: tuple[bool, ...]  # true where mixers mix: neither answers nor what a loss is taken of


class PromptEncoder:
    """Encodes conversations by one tokenizer and one chat template; encodings are cached.

    Args:
        tokenizer: of the host.
        chat_template: Jinja text; ``None`` only for documents.
        image_token_id: the placeholder's id.
        writes_images: put the placeholder where an image stands in a document; a chat template writes its own.
        begins: put what the tokenizer puts before any text before a prompt whose template does not (LLaVA-1.5).
        cached: how many encodings are kept.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        chat_template: str | None,
        image_token_id: int,
        begins: bool = False,
        writes_images: bool = True,
        cached: int = 65536,
    ) -> None:
        self.tokenizer, self.chat_template, self.image_token_id = tokenizer, chat_template, image_token_id
        self.begins, self.written = begins, [image_token_id] if writes_images else []
        self.cache(cached)

    def cache(self, count: int) -> None:
        """Set how many encodings are kept, from none on."""
        self.prompt = lru_cache(count)(self._prompt)
        self.answered = lru_cache(count)(self._answered)
        self.words_at = lru_cache(count)(self._words_at)

    # Untrusted text ----------------------------------------------------------------------------------------------

    @cached_property
    def plain(self) -> PreTrainedTokenizerBase:
        """The tokenizer for untrusted text, copied on first use."""
        return plain_tokenizer(self.tokenizer)

    def plain_ids(self, text: str) -> list[int]:
        """Encode untrusted text: control tokens and the placeholder become the characters they are written with."""
        return self.plain(text, add_special_tokens=False)["input_ids"]

    def plain_spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of ``plain_ids(text)`` begins and ends in ``text``, in characters.

        Raises:
            PromptError: the tokenizer does not say.
        """
        plain = self.plain
        if not plain.is_fast:
            raise PromptError(f"{type(plain).__name__} does not say which characters a token is; nothing to show")
        return plain(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    # Conversations -----------------------------------------------------------------------------------------------

    def _prompt(self, turns: tuple[Turn, ...]) -> Encoded:
        """Encode ``turns`` up to where the next answer begins; assistant turns in it are not mixed."""
        asks = turns[-1].role != "assistant"
        ids = self._ids(turns, asks)
        return _encoded(ids, self._replies(ids, turns, asks), [])

    def _answered(self, turns: tuple[Turn, ...], loss: str) -> Encoded:
        """Encode ``turns`` with labels: of each assistant turn up to the token that closes it, or of all tokens.

        What follows the last label is left out. The last answer follows the very prompt that it would be asked by.

        Raises:
            PromptError: there is no assistant turn to learn.
        """
        ids, answers = self._ids(turns, False), _answers(turns)
        if loss == "all":
            document = turns[0].role == "text" and self._eos is not None
            whole = (*ids, self._eos) if document else tuple(ids)
            learnt = (
                at > 0 and token != self.image_token_id for at, token in enumerate(whole)
            )  # nothing predicts the first
            labels = tuple(token if wanted else IGNORED for token, wanted in zip(whole, learnt, strict=True))
            return Encoded(whole, labels, tuple(token == self.image_token_id for token in whole))
        if not answers:
            raise PromptError("the conversation has no assistant turn to learn; add one, or set loss='all'")
        asked = turns[: answers[-1]]
        prompt = self._ids(asked, True) if asked else []
        begin, end = self._reply(ids, turns, answers[-1], False)
        reply = ids[begin:end]
        if self._closing is None and self._eos is not None:  # nothing in the template says that the answer is over
            reply = [*reply, self._eos]
        last = (len(prompt), len(prompt) + len(reply))
        spans = [*self._replies(prompt, asked, True), last] if asked else [last]
        return _encoded([*prompt, *reply], spans, spans)

    def _ids(self, turns: Sequence[Turn], generation: bool) -> list[int]:
        if turns[0].role == "text":
            start = [] if self.tokenizer.bos_token_id is None else [self.tokenizer.bos_token_id]
            pieces = [piece for turn in turns for piece in turn.content]
            return start + [
                token for piece in pieces for token in (self.written if piece is IMAGE else self.plain_ids(piece))
            ]
        if self.chat_template is None:
            raise PromptError(
                "this host's processor has no chat template; pass chat_template= to MoaiProcessor, "
                "or set host.chat_template in the recipe"
            )
        ids = self.tokenizer.apply_chat_template(
            [_message(turn) for turn in turns],
            chat_template=self.chat_template,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            add_generation_prompt=generation,
        )
        return self.begun(ids)

    def begun(self, ids: list[int]) -> list[int]:
        """Put the tokenizer's beginning before ``ids``, where it is wanted and missing."""
        start = self._start if self.begins else []
        return ids if ids[: len(start)] == start else [*start, *ids]

    @cached_property
    def _start(self) -> list[int]:
        """Ids that the tokenizer puts before any text."""
        whole, text = (self.tokenizer("a", add_special_tokens=added)["input_ids"] for added in (True, False))
        return whole[: whole.index(text[0])]

    # Where words and answers stand -------------------------------------------------------------------------------

    def _words_at(self, turns: tuple[Turn, ...]) -> int:
        """Where the words of a perception stand in a prompt without a placeholder: before the text of a turn.

        It is the last turn that shows an image, else the user's first.
        """
        shown = [number for number, turn in enumerate(turns) if turn.images]
        at = shown[-1] if shown else next((n for n, turn in enumerate(turns) if turn.role == "user"), 0)
        probes = [(*turns[:at], Turn(turns[at].role, probe), *turns[at + 1 :]) for probe in PROBES]
        ids, *others = (self._ids(one, False) for one in (turns, *probes))
        return min(_common(ids, other) for other in others)

    def _replies(self, ids: list[int], turns: tuple[Turn, ...], generation: bool) -> list[tuple[int, int]]:
        return [self._reply(ids, turns, at, generation) for at in _answers(turns)]

    def _reply(self, ids: list[int], turns: tuple[Turn, ...], at: int, generation: bool) -> tuple[int, int]:
        """Where the answer of turn ``at`` begins and ends in ``ids``, the token that closes it included.

        It begins where a prompt of the turns before it ends. A template that writes a prompt otherwise than the same
        turns within a conversation is compared with itself, with other answers in the place of this one.
        """
        before = self._ids(turns[:at], True) if at else []
        prefix = bool(before) and ids[: len(before)] == before
        begin = len(before) if prefix else self._changed(ids, turns, at, generation)[0]
        if at == len(turns) - 1 and self._closing is not None and self._closing in ids[begin:]:
            return begin, ids.index(self._closing, begin) + 1
        end = max(begin, self._changed(ids, turns, at, generation)[1])
        return begin, end + self._closes(ids[end:])

    def _closes(self, following: list[int]) -> int:
        """How many of the tokens after an answer close its turn: up to the first control token that begins no turn."""
        for count, token in enumerate(following, start=1):
            if token in self._special:
                return count if token == self._closing or token not in self._opening else 0
            if self.tokenizer.decode([token]).strip():
                return 0
        return 0

    def _changed(self, ids: list[int], turns: tuple[Turn, ...], at: int, generation: bool) -> tuple[int, int]:
        """The first and one past the last token of ``ids`` that depend on the answer of turn ``at``."""
        first, last = len(ids), 0
        for probe in PROBES:
            other = self._ids((*turns[:at], Turn("assistant", probe), *turns[at + 1 :]), generation)
            first = min(first, _common(ids, other))
            last = max(last, len(ids) - _common(ids[::-1], other[::-1]))
        return first, last

    @cached_property
    def _closing(self) -> int | None:
        """The control token by which the template closes an assistant's turn; ``None`` where there is none."""
        turns = (Turn("user", "a"), Turn("assistant", PROBES[0]))
        ids = self._ids(turns, False)
        _, end = self._changed(ids, turns, 1, False)
        return next((token for token in ids[end:] if token in self._special), None)

    @cached_property
    def _special(self) -> frozenset[int]:
        """Ids of all control tokens."""
        return frozenset(number for number, token in self.tokenizer.added_tokens_decoder.items() if token.special)

    @cached_property
    def _opening(self) -> frozenset[int]:
        """Control tokens that the template writes before a user's turn."""
        one, other = (self._ids((Turn("user", probe),), False) for probe in PROBES)
        return self._special & set(one[: _common(one, other)])

    @property
    def _eos(self) -> int | None:
        return self.tokenizer.eos_token_id

    @property
    def stops(self) -> list[int]:
        """Ids at which an answer ends: the tokenizer's end, and what the template closes a turn with."""
        closing = None if self.chat_template is None else self._closing
        return [token for token in dict.fromkeys((self._eos, closing)) if token is not None]


def _answers(turns: Sequence[Turn]) -> list[int]:
    return [number for number, turn in enumerate(turns) if turn.role == "assistant"]


def _encoded(ids: Sequence[int], spans: Sequence[tuple[int, int]], labelled: Sequence[tuple[int, int]]) -> Encoded:
    prompt, labels = [True] * len(ids), [IGNORED] * len(ids)
    for begin, end in spans:
        prompt[begin:end] = [False] * (end - begin)
    for begin, end in labelled:
        labels[begin:end] = ids[begin:end]
    return Encoded(tuple(ids), tuple(labels), tuple(prompt))


def _message(turn: Turn) -> dict[str, Any]:
    """One turn as transformers' chat templates take it."""
    parts = [{"type": "image"} if part is IMAGE else {"type": "text", "text": part} for part in turn.content]
    return {"role": turn.role, "content": parts}


def _common(one: Sequence[int], other: Sequence[int]) -> int:
    """The length of what both begin with."""
    shortest = min(len(one), len(other))
    return next((n for n in range(shortest) if one[n] != other[n]), shortest)
