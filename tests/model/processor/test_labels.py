"""Labels token by token, for the chat formats of the families in docs/hosts.md, written here in their shortest form."""

import pytest
import tiny
from transformers import PreTrainedTokenizerFast

from moai.errors import PromptError
from moai.model.processor.chat_templates import PRELUDE, QUESTION_ANSWER
from moai.model.processor.prompts import IGNORED, PromptEncoder
from moai.types import IMAGE, Conversation, Turn


def template(user, assistant, begin="", prompt="", system="{c}\n"):
    """A chat template from the forms of its turns; ``{c}`` is the content, ``{t}`` the content without outer space."""

    def form(text):
        text = "{{ '" + text.replace("\n", "\\n").replace("{c}", "' + message['content'] + '") + "' }}"
        return text.replace("{t}", "' + (message['content'] | trim) + '")

    loop = (
        "{% for message in messages %}{% if message['role'] == 'user' %}" + form(user)
        + "{% elif message['role'] == 'system' %}" + form(system) + "{% else %}" + form(assistant)
        + "{% endif %}{% endfor %}"
    )  # fmt: skip
    asks = "{% if add_generation_prompt %}{{ '" + prompt.replace("\n", "\\n") + "' }}{% endif %}"
    return PRELUDE.replace("@IMAGE@", "<image>") + "{{ '" + begin + "' }}" + loop + asks


# name -> (eos, template, what one labelled answer "red" is in text, and whether its turn is closed by the template)
FORMATS = {
    "question_answer": ("<|im_end|>", PRELUDE.replace("@IMAGE@", "<image>") + QUESTION_ANSWER, " red<|im_end|>"),
    "chatml": (  # Qwen2, SmolLM, InternLM, StableLM 2
        "<|im_end|>",
        template("<|im_start|>user\n{c}<|im_end|>\n", "<|im_start|>assistant\n{c}<|im_end|>\n",
                 prompt="<|im_start|>assistant\n"),
        "red<|im_end|>",
    ),
    "llama3": (  # begins the text, strips spaces, closes a turn with another token than eos
        "<|endoftext|>",
        template("<|header|>user<|/header|>\n\n{t}<|eot|>", "<|header|>assistant<|/header|>\n\n{t}<|eot|>",
                 begin="<|begin|>", prompt="<|header|>assistant<|/header|>\n\n"),
        "red<|eot|>",
    ),
    "mistral": ("</s>", template("[INST] {c} [/INST]", " {t}</s>", begin="<|begin|>"), " red</s>"),
    "gemma": (
        "<|endoftext|>",
        template("<start_of_turn>user\n{t}<end_of_turn>\n", "<start_of_turn>model\n{t}<end_of_turn>\n",
                 begin="<|begin|>", prompt="<start_of_turn>model\n"),
        "red<end_of_turn>",
    ),
    "phi3": (
        "<|endoftext|>",
        template("<|user|>\n{c}<|end|>\n", "<|assistant|>\n{c}<|end|>\n", prompt="<|assistant|>\n"),
        "red<|end|>",
    ),
    "zephyr": (  # GPT-NeoX, MPT chat
        "</s>",
        template("<|user|>\n{c}</s>\n", "<|assistant|>\n{c}</s>\n", prompt="<|assistant|>\n"),
        "red</s>",
    ),
    "vicuna": ("</s>", template("USER: {c} ", "ASSISTANT: {c}</s>", prompt="ASSISTANT:"), " red</s>"),
    "falcon": ("<|endoftext|>", template("User: {c}\n\n", "Falcon: {c}\n\n", prompt="Falcon:"), " red<|endoftext|>"),
    "llava": ("</s>", template("USER: {c} ", "ASSISTANT: {c} ", prompt="ASSISTANT:"), " red</s>"),
    "cohere": (
        "<|endoftext|>",
        template("<|start|><|user|>{c}<|end|>", "<|start|><|assistant|>{c}<|end|>", begin="<|begin|>",
                 prompt="<|start|><|assistant|>"),
        "red<|end|>",
    ),
    "granite": (
        "<|endoftext|>",
        template("<|start|>user<|/start|>{c}<|endoftext|>\n", "<|start|>assistant<|/start|>{c}<|endoftext|>\n",
                 prompt="<|start|>assistant<|/start|>"),
        "red<|endoftext|>",
    ),
    "olmo2": (  # begins with the token that closes
        "<|endoftext|>",
        template("<|user|>\n{c}\n", "<|assistant|>\n{c}<|endoftext|>\n", begin="<|endoftext|>",
                 prompt="<|assistant|>\n"),
        "red<|endoftext|>",
    ),
    "glm4": (  # nothing closes a turn; the next one begins
        "<|endoftext|>",
        template("<|user|>\n{c}", "<|assistant|>\n{c}", begin="<|begin|>", prompt="<|assistant|>\n"),
        "red<|endoftext|>",
    ),
    "gpt_oss": (  # the prompt ends before the answer's own header, and the last turn is closed by another token
        "<|return|>",
        PRELUDE.replace("@IMAGE@", "<image>")
        + "{% for message in messages %}<|start|>{{ message['role'] }}"
        "{% if message['role'] == 'assistant' %}<|channel|>final{% endif %}<|message|>{{ message['content'] }}"
        "{% if loop.last and message['role'] == 'assistant' %}<|return|>{% else %}<|end|>{% endif %}{% endfor %}"
        "{% if add_generation_prompt %}<|start|>assistant{% endif %}",
        "<|channel|>final<|message|>red<|return|>",
    ),
    "thinking": (  # Qwen3, DeepSeek R1: the prompt ends in what no answered turn has
        "<|im_end|>",
        template("<|im_start|>user\n{c}<|im_end|>\n", "<|im_start|>assistant\n{c}<|im_end|>\n",
                 prompt="<|im_start|>assistant\n<think>\n\n</think>\n\n"),
        "red<|im_end|>",
    ),
}  # fmt: skip
SPECIAL = sorted(
    {"<|begin|>", "<|header|>", "<|/header|>", "<|eot|>", "</s>", "<start_of_turn>", "<end_of_turn>", "<|user|>",
     "<|assistant|>", "<|end|>", "<|start|>", "<|/start|>", "<|return|>", "<|channel|>", "<|message|>"}
)  # fmt: skip
TWO = (Turn("user", (IMAGE, "What color?")), Turn("assistant", "red"), Turn("user", "Sure?"), Turn("assistant", "yes"))


@pytest.fixture(scope="module")
def words():
    made = tiny.tokenizer()
    made.add_special_tokens({"additional_special_tokens": SPECIAL})
    return made


def encoder(words, name):
    eos, chat, _ = FORMATS[name]
    own = PreTrainedTokenizerFast(tokenizer_object=words.backend_tokenizer, eos_token=eos, pad_token="<|endoftext|>",
                                  bos_token="<|im_start|>")  # fmt: skip
    return PromptEncoder(own, chat, own.convert_tokens_to_ids("<image>"))


def labelled(made, encoded):
    """The labelled runs of an encoding, as text."""
    runs, inside = [], False
    for token in encoded.labels:
        if token == IGNORED:
            inside = False
            continue
        if not inside:
            runs.append([])
        inside = True
        runs[-1].append(token)
    return [made.tokenizer.decode(run) for run in runs]


@pytest.mark.parametrize("name", FORMATS)
def test_one_answer_is_labelled_with_the_token_that_closes_it(words, name):
    made = encoder(words, name)
    encoded = made.answered(TWO[:2], "assistant")
    print(f"{name:16} {made.tokenizer.decode(encoded.ids)!r} -> {labelled(made, encoded)}")
    assert labelled(made, encoded) == [FORMATS[name][2]]
    assert encoded.labels[-1] == encoded.ids[-1] != IGNORED
    assert made.stops[0] == made.tokenizer.eos_token_id and encoded.ids[-1] in made.stops


@pytest.mark.parametrize("name", FORMATS)
def test_an_answer_follows_the_very_prompt_that_asks_for_it(words, name):
    made = encoder(words, name)
    prompt, encoded = made.prompt(TWO[:1]), made.answered(TWO[:2], "assistant")
    assert encoded.ids[: len(prompt.ids)] == prompt.ids
    assert set(encoded.labels[: len(prompt.ids)]) == {IGNORED}
    assert encoded.labels[len(prompt.ids)] == encoded.ids[len(prompt.ids)]
    assert encoded.prompt == tuple(label == IGNORED for label in encoded.labels) and all(prompt.prompt)


@pytest.mark.parametrize("name", FORMATS)
def test_every_turn_of_the_assistant_is_labelled_from_its_first_token(words, name):
    made = encoder(words, name)
    encoded = made.answered(TWO, "assistant")
    print(f"{name:16} {made.tokenizer.decode(encoded.ids)!r} -> {labelled(made, encoded)}")
    first, last = labelled(made, encoded)
    assert last == FORMATS[name][2].replace("red", "yes")
    assert "red" in first and "Sure" not in first and "What" not in first and "user" not in first.lower()
    closed = name not in ("falcon", "llava", "glm4")
    assert first.strip() == ("red" if not closed else FORMATS[name][2].strip().replace("<|return|>", "<|end|>"))
    assert encoded.ids.count(made.image_token_id) == 1


@pytest.mark.parametrize("name", FORMATS)
@pytest.mark.parametrize("answer", ["red", "a long answer. <|im_end|> of two\n\nlines </s>", " spaced ", "7"])
def test_hostile_and_odd_answers_are_labelled_whole(words, name, answer):
    made = encoder(words, name)
    encoded = made.answered((TWO[0], Turn("assistant", answer)), "assistant")
    [run] = labelled(made, encoded)
    assert answer.strip() in run
    special = {made.tokenizer.convert_tokens_to_ids(token) for token in (*SPECIAL, *tiny.SPECIAL)}
    found = [token for token in encoded.labels if token in special]
    assert len(found) == (3 if name == "gpt_oss" else 1) and encoded.labels[-1] == found[-1]


@pytest.mark.parametrize("name", FORMATS)
def test_a_system_turn_and_history_are_no_targets(words, name):
    made = encoder(words, name)
    encoded = made.answered((Turn("system", "Be brief."), *TWO), "assistant")
    assert "brief" in made.tokenizer.decode(encoded.ids) and len(labelled(made, encoded)) == 2
    prompt = made.prompt(TWO[:3])
    answered = [made.tokenizer.decode([t]) for t, mixed in zip(prompt.ids, prompt.prompt, strict=True) if not mixed]
    assert "red" in "".join(answered) and "Sure" not in "".join(answered)


def test_all_tokens_but_images_are_targets_on_request(words):
    made = encoder(words, "chatml")
    encoded = made.answered(TWO, "all")
    assert encoded.labels[0] == IGNORED  # nothing predicts the first token
    assert encoded.labels[1:].count(IGNORED) == 1 == encoded.ids.count(made.image_token_id)
    assert encoded.prompt == tuple(token == made.image_token_id for token in encoded.ids)


def test_a_document_is_written_without_the_template(words):
    made = encoder(words, "chatml")
    turns = (Turn("text", ("A red ", IMAGE, " thing <|im_end|>")),)
    encoded = made.answered(turns, "all")
    assert encoded.ids[0] == made.tokenizer.bos_token_id and encoded.ids[-1] == made.tokenizer.eos_token_id
    assert made.tokenizer.decode(encoded.ids[1:-1]) == "A red <image> thing <|im_end|>"
    assert encoded.ids.count(made.tokenizer.eos_token_id) == 1  # the end; what the text spells stays text
    assert made.prompt(turns).ids == encoded.ids[:-1]


def test_nothing_to_learn_is_refused(words):
    with pytest.raises(PromptError, match="no assistant turn to learn; add one, or set loss='all'"):
        encoder(words, "chatml").answered(TWO[:1], "assistant")


def test_encodings_are_made_once(words, monkeypatch):
    made, calls = encoder(words, "chatml"), []
    inner = made.tokenizer.apply_chat_template
    monkeypatch.setattr(made.tokenizer, "apply_chat_template", lambda *a, **k: calls.append(1) or inner(*a, **k))
    first = made.answered(TWO, "assistant")
    count = len(calls)
    assert made.answered(Conversation(TWO, (b"other",)).turns, "assistant") is first and len(calls) == count > 0
