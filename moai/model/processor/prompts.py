"""Prompts and answers as token ids.

Knows: tokenizers and chat templates. Text from images, questions and answers is never read as control tokens; it is
tokenised by a tokenizer of its own that splits them.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Any

from moai.errors import PromptError
from moai.model.processor.untrusted_text import plain_tokenizer

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


class Prompts:
    """What a processor does with text; it needs its ``tokenizer``, ``max_length`` and the image placeholder."""

    @cached_property
    def _plain(self) -> PreTrainedTokenizerBase:
        return plain_tokenizer(self.tokenizer)  # on first use: to copy a tokenizer takes longer than to load a host

    def plain_ids(self, text: str) -> list[int]:
        """Token ids of untrusted text: control tokens and the placeholder come out as the characters they are."""
        return self._plain(text, add_special_tokens=False)["input_ids"]

    def prompt_ids(self, question: str, images: int = 1) -> list[int]:
        """Token ids of one question about ``images`` images, up to where the answer begins.

        Raises:
            PromptError: longer than the host's context.
        """
        ids = self.conversation_ids(self._user_turn(question, images), add_generation_prompt=True)
        self._check_length(len(ids))
        return ids

    def answer_ids(self, question: str, answer: str, images: int = 1) -> list[int]:
        """Token ids of the answer to ``prompt_ids(question)``, with the token that ends it."""
        return self.reply_ids(self._user_turn(question, images), self.prompt_ids(question, images), answer)

    def reply_ids(self, turns: list[dict[str, Any]], prompt: list[int], answer: str) -> list[int]:
        """Token ids of the assistant's ``answer`` behind ``turns``, as the template writes it, with the end of turn.

        ``prompt`` is ``conversation_ids(turns, add_generation_prompt=True)``.
        """
        turn = {"role": "assistant", "content": [{"type": "text", "text": answer}]}
        whole, eos = self.conversation_ids([*turns, turn]), self.tokenizer.eos_token_id
        if whole[: len(prompt)] != prompt or eos not in whole[len(prompt) :]:
            return [*self.plain_ids(answer), eos]  # the template does not continue its own prompt
        return whole[len(prompt) : whole.index(eos, len(prompt)) + 1]

    def _user_turn(self, question: str, images: int) -> list[dict[str, Any]]:
        return [{"role": "user", "content": [{"type": "image"}] * images + [{"type": "text", "text": question}]}]

    def conversation_ids(self, turns: list[dict[str, Any]], **kwargs: Any) -> list[int]:
        """Token ids of a conversation, images as their placeholders; what users wrote never becomes control tokens.

        Args:
            turns: as transformers' chat templates take them.
            kwargs: of ``apply_chat_template``, such as ``add_generation_prompt``.
        """
        ids = self.tokenizer.apply_chat_template(
            turns,
            chat_template=self.chat_template,
            tokenize=True,
            return_dict=False,
            sanitize_control_tokens=True,
            **kwargs,
        )
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * (self.image_tokens if token == self.image_token_id else 1)
        return expanded

    def plain_spans(self, text: str) -> list[tuple[int, int]]:
        """Where each token of ``plain_ids(text)`` begins and ends in ``text``, in characters.

        Raises:
            PromptError: the tokenizer does not know.
        """
        if not self._plain.is_fast:
            raise PromptError(f"{type(self._plain).__name__} does not say which characters a token is; nothing to show")
        return self._plain(text, add_special_tokens=False, return_offsets_mapping=True)["offset_mapping"]

    def replace_image_token(self, image_inputs: dict[str, Any], image_idx: int, **kwargs: Any) -> str:
        """One placeholder in a prompt becomes ``image_tokens`` of them."""
        return self.image_token * self.image_tokens

    def apply_chat_template(self, conversation: Any, *args: Any, tokenize: bool = False, **kwargs: Any) -> Any:
        """As in transformers, but user text never becomes control tokens (``sanitize_control_tokens``)."""
        if tokenize:
            kwargs.setdefault("sanitize_control_tokens", not kwargs.get("return_assistant_tokens_mask"))
        return super().apply_chat_template(conversation, *args, tokenize=tokenize, **kwargs)

    def _check_length(self, length: int) -> None:
        if self.max_length is not None and length >= self.max_length:
            raise PromptError(
                f"the prompt has {length} tokens and the host's context holds {self.max_length}; "
                "shorten the question or use fewer images"
            )
