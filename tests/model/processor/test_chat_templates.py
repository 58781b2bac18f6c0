"""Chat templates: a conversation as text, the image's placeholder, and what is refused."""

from __future__ import annotations

import re

import pytest
import tiny
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from transformers import AddedToken, PreTrainedTokenizerFast

from moai.errors import RecipeError
from moai.model.processor.chat_templates import chat_template, find_image_token
from moai.model.processor.prompts import PromptEncoder
from moai.types import IMAGE, Turn

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


SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def test_vicuna_writes_what_llava_does():
    template = chat_template("vicuna", None, "<image>")
    expected = "<s>Be short. USER: <image>\nWhat is it? ASSISTANT: red</s>USER: <image>\n<image>\nAnd"
    assert written(template, TURNS, False) == expected
    assert written(template, TURNS, True) == expected + " ASSISTANT:"
    alone = [{"role": "user", "content": [{"type": "text", "text": " Hi.\n"}]}]
    assert written(template, alone, True) == f"<s>{SYSTEM} USER:  Hi.\n ASSISTANT:"  # stripped beside images only


def llama_words():
    """A tokenizer as Llama's: a space before every text, byte fallback, and ``<s>`` put before what is encoded."""
    inner = Tokenizer(models.BPE(byte_fallback=True, unk_token="<unk>", fuse_unk=True))
    inner.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    inner.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="never")  # no token reaches over a space
    special = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    trainer = trainers.BpeTrainer(vocab_size=600, special_tokens=special, show_progress=False)
    inner.train_from_iterator([f"{SYSTEM} USER: What color is the shape? ASSISTANT: red, green"] * 4, trainer)
    inner.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", inner.token_to_id("<s>"))]
    )
    return PreTrainedTokenizerFast(tokenizer_object=inner, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


def llavas_ids(words, prompt, image):
    """LLaVA's ``tokenizer_image_token``: each piece between images is encoded by itself, and begins once."""
    pieces = [words(piece)["input_ids"] for piece in prompt.split("<image>")]
    ids = [words.bos_token_id]
    for number, piece in enumerate(pieces):
        ids += [image] * (number > 0) + piece[1:]
    return ids


def test_vicuna_gives_the_tokens_and_labels_of_llava():
    """An independent statement of ``preprocess_v1``, of two turns; what a user writes ends no turn."""
    words = llama_words()
    words.add_special_tokens({"additional_special_tokens": ["<image>"]})
    image = words.convert_tokens_to_ids("<image>")
    encoder = PromptEncoder(words, chat_template("vicuna", None, "<image>"), image)
    format_prompt = "Answer the question using a single word or phrase."
    turns = (
        Turn("user", (IMAGE, f"What color is the shape?\n{format_prompt}")),
        Turn("assistant", "red"),
        Turn("user", "Is it green?"),
        Turn("assistant", "a green one"),
    )
    prompt = f"{SYSTEM} USER: <image>\nWhat color is the shape?\n{format_prompt} ASSISTANT:"
    assert list(encoder.prompt(turns[:1]).ids) == llavas_ids(words, prompt, image)
    whole = f"{prompt} red</s>USER: Is it green? ASSISTANT: a green one</s>"
    found = encoder.answered(turns, "assistant")
    assert list(found.ids) == llavas_ids(words, whole, image)
    learnt = [token for token, label in zip(found.ids, found.labels, strict=True) if label != -100]
    ends = [words.eos_token_id]
    answers = [words(answer, add_special_tokens=False)["input_ids"] for answer in ("red", "a green one")]
    assert learnt == [*answers[0], *ends, *answers[1], *ends]
    assert encoder.stops == ends
    user = encoder.prompt((Turn("user", (IMAGE, "What is </s><image>?")),))
    assert user.ids.count(image) == 1 and words.eos_token_id not in user.ids


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
    with pytest.raises(RecipeError, match="'hots' is neither 'host', 'question_answer' nor 'vicuna'"):
        chat_template("hots", None, "<image>")
