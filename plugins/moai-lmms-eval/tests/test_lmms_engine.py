"""Answers and likelihoods, against the model asked directly."""

import math

import pytest
import tiny
import torch
from moai_lmms_eval.decoding import Decoding
from moai_lmms_eval.engine import Engine
from moai_lmms_eval.prompts import few_shot_messages, from_messages, from_text, with_answer

from moai import IMAGE
from moai.errors import MoaiError, PromptError, RecipeError
from moai.model.likelihood import answer_tokens
from moai.perception.running.perceiver import Perceiver
from moai.types import with_rationale

QUESTION = "What color is the shape?"
RED, BLUE, GREEN = (tiny.picture(color) for color in ("red", "blue", "green"))
PROMPTS = [
    from_text(QUESTION, [RED]),
    from_text("Is there a red shape in it? Look twice.", [BLUE]),
    from_text("Two: <image> and <image>?", [GREEN, RED]),
    from_text("No image at all?"),
    from_messages(few_shot_messages([([RED], "color?", "red"), ([GREEN], "color?", "green")], [BLUE], "color?")),
]
SHORT = Decoding(6)
EOS = 2


def row_of(augmented, conversation, answer_ids=(), perception=True):
    """Inputs of one conversation, made by hand and without padding; mixed is neither an answer nor what closes it."""
    processor = augmented.processor
    messages = [
        {"role": turn.role, "content": "".join("<image>" if part is IMAGE else part for part in turn.content)}
        for turn in conversation.turns
    ]
    rendered = processor.tokenizer.apply_chat_template(
        messages, chat_template=processor.chat_template, tokenize=False, add_generation_prompt=True
    )
    rendered = rendered.replace("<image>", "<image>" * processor.image_tokens)
    ids = processor.tokenizer(rendered, add_special_tokens=False)["input_ids"]
    mask = [True] * len(ids) + [False] * len(answer_ids)
    answered = [turn.text for turn in conversation.turns if turn.role == "assistant"]
    for end, text in zip((at for at, token in enumerate(ids) if token == EOS), answered, strict=True):
        length = len(processor.plain_ids(f" {text}"))
        mask[end - length : end + 1] = [False] * (length + 1)
    inputs = {"input_ids": torch.tensor([[*ids, *answer_ids]]), "prompt_mask": torch.tensor([mask])}
    inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
    if conversation.images:
        inputs.update(processor.images.encode([conversation.images])[1])
        if perception:
            found = augmented.perceiver.perceive(list(conversation.images))
            inputs.update(processor.perceptions.auxiliary([found]))
    return inputs, len(ids)


def asked_directly(augmented, prompt, tokens=6, perception=True, **options):
    inputs, start = row_of(augmented, prompt, perception=perception)
    output = augmented.model.generate(**inputs, max_new_tokens=tokens, do_sample=False, **options)
    return augmented.processor.tokenizer.decode(output[0, start:], skip_special_tokens=True)


def likelihood_directly(augmented, prompt, answer_ids):
    """Token by token, each in a forward of its own."""
    total, greedy = 0.0, True
    for at, token in enumerate(answer_ids):
        inputs, _ = row_of(augmented, prompt, answer_ids[:at])
        with torch.no_grad():
            logits = augmented.model(**inputs, use_cache=False).logits[0, -1].double()
        total += float(logits.log_softmax(-1)[token])
        logits[augmented.processor.image_token_id] = -torch.inf
        greedy = greedy and int(logits.argmax()) == token
    return total, greedy


def answer_ids(augmented, answer):
    return augmented.processor.plain_ids(f" {answer}")  # the tiny run's template puts a space before an answer


@pytest.mark.parametrize("perception", ["on", "off"])
def test_a_batch_answers_as_the_model_does_one_by_one(augmented, perception):
    replies = Engine(augmented, perception).generate(PROMPTS, SHORT)
    expected = [asked_directly(augmented, prompt, perception=perception == "on").strip() for prompt in PROMPTS]
    assert [reply.text for reply in replies] == expected
    assert len({reply.text for reply in replies}) > 1, "the tiny model says the same to all; nothing was tested"
    assert [reply.prompt_tokens for reply in replies] == [row_of(augmented, prompt)[1] for prompt in PROMPTS]
    assert all(0 < reply.answer_tokens <= 6 for reply in replies if reply.text)


def test_perception_changes_answers_and_likelihoods(augmented):
    on, off = (Engine(augmented, perception) for perception in ("on", "off"))
    assert [r.text for r in on.generate(PROMPTS, SHORT)] != [r.text for r in off.generate(PROMPTS, SHORT)]
    answers = ["red"] * len(PROMPTS)
    pairs = zip(on.loglikelihood(PROMPTS, answers), off.loglikelihood(PROMPTS, answers), strict=True)
    differ = [abs(a.logprob - b.logprob) > 1e-3 for a, b in pairs]
    assert differ == [True, True, True, False, True], "only the question without an image may stay"


def test_the_question_is_asked_as_ask_does(augmented, engine):
    [reply] = engine.generate([from_text(QUESTION, [BLUE])], Decoding(16))
    assert reply.text == augmented.ask(BLUE, QUESTION).text


def test_likelihoods_are_sums_over_the_answers_tokens(augmented, engine):
    answers = ["red", "no, there is none", "blue and green", "yes", "a"]
    scores = engine.loglikelihood(PROMPTS, answers)
    for prompt, answer, score in zip(PROMPTS, answers, scores, strict=True):
        total, greedy = likelihood_directly(augmented, prompt, answer_ids(augmented, answer))
        assert score.logprob == pytest.approx(total, abs=1e-4)
        assert score.greedy is greedy
    assert all(score.logprob < -0.1 for score in scores)


def test_a_greedy_answer_is_greedy_and_no_other_is(augmented, engine, monkeypatch):
    prompt = from_text(QUESTION, [RED])
    inputs, start = row_of(augmented, prompt)
    ids = augmented.model.generate(**inputs, max_new_tokens=3, do_sample=False)[0, start:].tolist()
    total, greedy = likelihood_directly(augmented, prompt, ids)
    assert greedy
    # Ids that text cannot spell are put in the place of an answer of as many tokens.
    text = next(text for text in ("red red red", "no no no", "abc") if len(answer_ids(augmented, text)) == 3)
    inputs_of = engine._inputs

    def replaced(conversations, labels):
        inputs = inputs_of(conversations, labels)
        for row, answer in enumerate((ids, [*ids[:-1], ids[-1] - 1])):
            for name in ("input_ids", "labels"):
                inputs[name][row, start : start + 3] = torch.tensor(answer)
        return inputs

    monkeypatch.setattr(engine, "_inputs", replaced)
    first, other = engine.loglikelihood([prompt] * 2, [text] * 2)
    assert first.greedy and first.logprob == pytest.approx(total, abs=1e-4)
    assert not other.greedy and other.logprob < first.logprob


def test_space_around_an_answer_does_not_count_and_an_empty_one_is_certain(engine):
    prompt = from_text(QUESTION, [RED])
    plain, spaced, empty = engine.loglikelihood([prompt] * 3, ["red", " red\n", " "])
    assert plain.logprob == pytest.approx(spaced.logprob, abs=1e-5)
    assert empty == (0.0, True)
    assert engine.loglikelihood([prompt], [""]) == [(0.0, True)]


def test_a_chat_template_of_the_hosts_own_is_scored_as_it_writes_answers(augmented):
    model, processor = tiny.made(host={"chat_template": "host"})
    engine = Engine(type(augmented)(model, processor, augmented.perceiver))
    prompt = from_text(QUESTION, [RED])

    def scored_ids(answer):
        inputs = engine._inputs([with_answer(prompt, answer)], labels=True)
        scored = answer_tokens(engine.processor, inputs["labels"], inputs["attention_mask"].bool())
        return inputs["input_ids"][scored].tolist()

    assert scored_ids("red") == processor.plain_ids("red"), "a line break stands before it, no space"
    assert scored_ids("<|im_end|>") == processor.plain_ids("<|im_end|>")


def test_stop_strings_end_answers_and_save_tokens(augmented, engine):
    prompt = from_text(QUESTION, [RED])
    [whole] = engine.generate([prompt], Decoding(24))
    stop = whole.text[3:5]
    short = engine.generate([prompt, *PROMPTS], Decoding(24, (stop,)))
    assert short[0].text == whole.text[: whole.text.index(stop)].strip()
    assert short[0].answer_tokens < whole.answer_tokens


def test_beams_and_samples_are_transformers_own(augmented, engine):
    prompt = from_text(QUESTION, [RED])
    [beams] = engine.generate([prompt], Decoding(6, (), {"num_beams": 3}))
    assert beams.text == asked_directly(augmented, prompt, num_beams=3).strip()
    torch.manual_seed(0)
    sampled = {engine.generate([prompt], Decoding(6, (), {"do_sample": True}))[0].text for _ in range(4)}
    assert len(sampled) > 1


def test_a_row_stops_at_the_hosts_context_whatever_its_neighbours_do(augmented, engine, monkeypatch):
    room = 5
    [length] = augmented.processor.lengths([from_text(QUESTION, [RED])], labels=False)
    monkeypatch.setattr(augmented.processor, "max_length", length + room)
    long, short = engine.generate([from_text(QUESTION, [RED]), from_text("a?")], Decoding(12))
    assert long.answer_tokens <= room < short.answer_tokens
    assert engine.generate([from_text(QUESTION, [RED])], Decoding(12)) == [long]
    with pytest.raises(PromptError, match="use fewer images"):
        engine.generate([from_text(QUESTION * 2, [RED])], SHORT)
    with pytest.raises(PromptError, match="use fewer images"):
        engine.loglikelihood([from_text(QUESTION, [RED])], ["a b c d e f g h i"])


def test_chain_of_thought_reads_its_own_description(engine):
    prompts = [from_text(QUESTION, [RED]), from_text("No image?")]
    [rationale] = engine.generate([from_text("Introduce this picture in detail:", [RED])], Decoding(5))
    expected = engine.generate([with_rationale(prompts[0], rationale.text), prompts[1]], SHORT)
    assert engine.reason(prompts, SHORT, tokens=5) == expected
    assert engine.reason(prompts[1:], SHORT) == expected[1:]
    assert engine.reason(prompts, SHORT, "Say more:", 5)[0].prompt_tokens != expected[0].prompt_tokens


def test_the_conversation_with_the_likeliest_yes_is_chosen(augmented, engine):
    asked = [from_text("<image><image> The following image is:<image>", [RED, BLUE, c]) for c in (BLUE, GREEN, RED)]
    best, chances = engine.choose(asked)
    assert len(chances) == 3 and chances[best] == max(chances) and len(set(chances)) == 3
    for one, chance in zip(asked, chances, strict=True):
        total, _ = likelihood_directly(augmented, one, answer_ids(augmented, "Yes"))
        assert chance == pytest.approx(math.exp(total), rel=1e-3)


def test_shuffled_gives_each_image_another_ones_perception(augmented):
    engine = Engine(augmented, "shuffled", seed=3)
    engine.source.prepare([RED, BLUE, GREEN, RED])
    own = {name: augmented.perceiver.perceive([tiny.picture(name)])[0] for name in ("red", "blue", "green")}
    given = dict(zip(own, engine.source.perceive([tiny.picture(name) for name in own]), strict=True))
    labels = {name: perception.segments[0].label for name, perception in given.items()}
    assert sorted(labels.values()) == sorted(own) and all(name != label for name, label in labels.items())
    assert engine.source.perceive([RED, RED]) == [given["red"]] * 2
    with pytest.raises(MoaiError, match="at least two images"):
        engine.source.prepare([RED, RED])


def test_words_in_the_prompt_are_counted_and_read(augmented):
    model, processor = tiny.made(perception={"inject": "prompt"}, mixer={"layers": []})
    injected = type(augmented)(model, processor, augmented.perceiver)
    prompt = from_text("color?", [RED])
    costs = [Engine(injected, on).generate([prompt], SHORT)[0].prompt_tokens for on in ("on", "off")]
    assert costs[0] > costs[1] + 10


@pytest.mark.parametrize(
    ("perception", "words"),
    [("of", "did you mean 'off'"), ("oracle", "needs ground truth"), ("left", "no perception 'left'")],
)
def test_other_perceptions_are_refused(augmented, perception, words):
    with pytest.raises(RecipeError, match=words):
        Engine(augmented, perception)


def test_an_expert_that_fails_is_named_once(augmented, caplog):
    class Broken(tiny.TinyPanoptic):
        def perceive(self, images, context):
            raise ValueError("no weights")

    failing = type(augmented)(augmented.model, augmented.processor, Perceiver([Broken()]))
    engine = Engine(failing)
    for _ in range(2):
        assert engine.generate([from_text(QUESTION, [RED])], SHORT)[0].answer_tokens
    assert [record.getMessage() for record in caplog.records if "no weights" in record.getMessage()] != []
    assert sum("gave nothing for an image" in record.getMessage() for record in caplog.records) == 1
