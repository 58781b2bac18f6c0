"""Chat templates: a conversation as text, the image's placeholder, and what is refused."""

from __future__ import annotations

import re

import pytest
import tiny
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, models
from transformers import AddedToken, PreTrainedTokenizerFast

from moai.errors import RecipeError
from moai.model.processor.chat_templates import chat_template, find_image_token

TURNS = [
    {"role": "system", "content": "Be short."},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "What is it?"}]},
    {"role": "assistant", "content": "red"},
    {"role": "user", "content": [{"type": "text", "text": "And "}, {"type": "image"}, {"type": "image"}]},
]


def written(template, turns, prompt):
    known = {"bos_token": "<s>", "eos_token": "</s>"}
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(template)
    return made.render(messages=turns, add_generation_prompt=prompt, **known)


def test_question_answer_writes_each_role_and_opens_the_answer():
    template = chat_template("question_answer", None, "<image>")
    expected = "<s>Be short.\n<image>What is it? Answer: red</s>And <image><image>"
    assert written(template, TURNS, False) == expected
    assert written(template, TURNS, True) == expected + " Answer:"


@pytest.mark.parametrize("wanted", ["host", tiny.CHATML])
def test_a_template_of_strings_gets_images_as_placeholders(wanted):
    template = chat_template(wanted, tiny.CHATML, "<|img|>")
    text = written(template, TURNS[1:], True)
    assert text == (
        "<|im_start|>user\n<|img|>What is it?<|im_end|>\n<|im_start|>assistant\nred<|im_end|>\n"
        "<|im_start|>user\nAnd <|img|><|img|><|im_end|>\n<|im_start|>assistant\n"
    )


def test_a_question_is_not_read_as_a_template():
    turn = [{"role": "user", "content": [{"type": "text", "text": "{{ 7 * 7 }} {% raw %}"}]}]
    assert written(chat_template("question_answer", None, "<image>"), turn, False) == "<s>{{ 7 * 7 }} {% raw %}"


def test_the_placeholder_is_found_or_refused():
    words = tiny.tokenizer()
    assert find_image_token(None, words) == "<image>"
    assert find_image_token("<|im_end|>", words) == "<|im_end|>"
    ordinary = next(token for token in words.get_vocab() if token not in words.added_tokens_encoder)
    for wrong in ("<picture>", ordinary):  # an ordinary token merges with the text around it
        with pytest.raises(RecipeError, match=f"'{re.escape(wrong)}' is no special token of this host; leave it out"):
            find_image_token(wrong, words)


def test_a_spare_token_of_the_hosts_is_taken_before_one_is_added():
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    words.chat_template = "<|in_use|>{{ messages }}"
    words.add_tokens([AddedToken(token, special=True) for token in ("<|in_use|>", "<|spare|>")])
    assert find_image_token(None, words) == "<|spare|>"
    words = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), eos_token="</s>")
    assert find_image_token(None, words) == "<image>" and "<image>" in words.get_vocab()


def test_a_host_without_template():
    with pytest.raises(RecipeError, match="no chat template; set host.chat_template to question_answer"):
        chat_template("host", None, "<image>")
    with pytest.raises(RecipeError, match="'hots' is neither 'host' nor 'question_answer'"):
        chat_template("hots", None, "<image>")
