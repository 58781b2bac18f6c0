"""What else ``generate`` offers: static caches, streams, a second turn, other assistants, prompts of all kinds."""

import threading

import pytest
import tiny
import torch
from agreement import CLEAR, greedy
from transformers import TextIteratorStreamer, TextStreamer

from moai.compat import cache_of
from moai.errors import PromptError

QUESTIONS = ("What color?", "Is there a red shape in it, or none?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"))
LENGTH = 6
MODES = {
    "greedy": {},
    "no cache": {"use_cache": False},
    "static": {"cache_implementation": "static"},
    "beams": {"num_beams": 3},
}


@pytest.fixture
def inputs(built):
    return tiny.prompt_inputs(built[1], QUESTIONS, PERCEPTIONS)


def generate(model, inputs, **options):
    options = {"max_new_tokens": LENGTH, "min_new_tokens": LENGTH, "do_sample": False, **options}
    return model.generate(**inputs, **options)[:, inputs["input_ids"].shape[1] :]


def test_no_answer_below_hangs_on_a_near_tie(model, inputs, mixed):
    """Tokens are compared one by one below, across batch sizes, caches and assistants, whose last bits differ."""
    for given, length in ((inputs, LENGTH), (mixed[0], LENGTH), ({k: v[:1] for k, v in inputs.items()}, 12)):
        assert greedy(model, given, max_new_tokens=length, min_new_tokens=length).margin > CLEAR


def test_a_static_cache_gives_the_greedy_answer(model, inputs):
    assert torch.equal(generate(model, inputs, cache_implementation="static"), generate(model, inputs))


def test_sampling_without_a_cache_draws_the_same(model, inputs):
    drawn = []
    for use_cache in (True, False):
        torch.manual_seed(3)
        drawn.append(generate(model, inputs, do_sample=True, temperature=2.0, use_cache=use_cache))
    torch.manual_seed(4)
    other = generate(model, inputs, do_sample=True, temperature=2.0)
    assert torch.equal(*drawn) and not torch.equal(drawn[0], other)


# Streams ----------------------------------------------------------------------------------------------------------


def test_a_stream_says_what_is_returned(model, built, inputs, capsys):
    row = {name: value[1:] for name, value in inputs.items()}
    expected = built[1].tokenizer.decode(generate(model, row)[0], skip_special_tokens=True)
    streamer = TextStreamer(built[1].tokenizer, skip_prompt=True, skip_special_tokens=True)
    generate(model, row, streamer=streamer)
    assert expected.strip() and capsys.readouterr().out == f"{expected}\n"


def test_an_iterator_gets_the_answer_piece_by_piece(model, built, inputs):
    row = {name: value[1:] for name, value in inputs.items()}
    expected = built[1].tokenizer.decode(generate(model, row)[0], skip_special_tokens=True)
    streamer = TextIteratorStreamer(built[1].tokenizer, skip_prompt=True, skip_special_tokens=True, timeout=60)
    thread = threading.Thread(target=generate, args=(model, row), kwargs={"streamer": streamer})
    thread.start()
    pieces = list(streamer)
    thread.join()
    assert "".join(pieces) == expected and sum(map(bool, pieces)) > 1


# A second turn ----------------------------------------------------------------------------------------------------


@torch.no_grad()
def by_turns(model, turns, steps=LENGTH):
    """Greedy answers with a cache that is filled turn by turn with the plain forward: the reference.

    Each turn: new ids, which of them are prompt, and what else ``forward`` takes. Answers are part of the next turn's
    ids, so that both ways read the same text.
    """
    past, length = None, 0
    for number, (ids, prompt, rest) in enumerate(turns):
        end = length + ids.shape[1]
        mask = torch.zeros(1, end, dtype=torch.bool)
        mask[:, length:] = prompt
        output = model(input_ids=ids, attention_mask=torch.ones(1, end), prompt_mask=mask, cache=past,
                       use_cache=True, **rest)  # fmt: skip
        past, length = cache_of(output), end
        if number < len(turns) - 1:
            continue
        answer = []
        for _ in range(steps):
            logits = output.logits[:, -1]
            logits[:, [2, model.config.image_token_id]] = -torch.inf
            answer.append(logits.argmax(dim=-1, keepdim=True))
            length += 1
            output = model(input_ids=answer[-1], attention_mask=torch.ones(1, length), cache=past)
    return torch.cat(answer, dim=1)


def turn(processor, question, image=None, perception=None):
    ids = torch.tensor([processor.prompt_ids(question, images=0 if image is None else 1)])
    rest = processor.perceptions.auxiliary([[perception]]) if perception is not None else {}
    return ids, rest | ({"pixel_values": tiny.pixels(processor, image)} if image is not None else {})


@pytest.mark.parametrize("second_image", [False, True])
def test_a_second_turn_on_a_returned_cache(model, processor, second_image):
    """The second question is mixed in its own turn only; the first one and its image stay as they were read."""
    red, blue = tiny.picture("red"), tiny.picture("blue")
    first, given = turn(processor, QUESTIONS[0], red, PERCEPTIONS[0])
    second, more = turn(processor, QUESTIONS[1], blue if second_image else None, PERCEPTIONS[1])
    options = {"max_new_tokens": LENGTH, "min_new_tokens": LENGTH, "do_sample": False}
    output = model.generate(input_ids=first, **given, **options, return_dict_in_generate=True)
    answer = output.sequences[:, first.shape[1] :]
    whole = torch.cat([output.sequences, second], dim=1)
    prompt = torch.ones_like(whole).bool()
    prompt[:, first.shape[1] : output.sequences.shape[1]] = False  # the model's own answer is never mixed

    cached = cache_of(output).get_seq_length()
    assert cached == output.sequences.shape[1] - 1
    behind = torch.cat([answer[:, -1:], second], dim=1)
    own = torch.ones_like(behind).bool()
    own[:, 0] = False
    turns = [(first, True, given), (answer[:, :-1], False, {}), (behind, own, more)]
    expected = by_turns(model, turns)
    pixels = [red, blue] if second_image else [red]  # of the whole conversation, as a processor gives them
    again = {**more, "pixel_values": tiny.pixels(processor, *pixels)}
    cache = {"cache": cache_of(output), "prompt_mask": prompt}
    found = model.generate(input_ids=whole, **again, **options, **cache)[:, whole.shape[1] :]
    assert torch.equal(found, expected)
    unmixed = by_turns(model, [*turns[:-1], (behind, False, more)])
    assert not torch.equal(expected, unmixed), "mixing the second question changes nothing; the test shows nothing"


def test_an_image_that_was_read_is_not_encoded_again(model, processor, monkeypatch):
    first, given = turn(processor, QUESTIONS[0], tiny.picture("red"), PERCEPTIONS[0])
    output = model.generate(input_ids=first, **given, max_new_tokens=3, return_dict_in_generate=True)
    second, _ = turn(processor, QUESTIONS[1])
    seen = []
    forward = model.images.vision.forward
    monkeypatch.setattr(model.images.vision, "forward", lambda pixels: seen.append(len(pixels)) or forward(pixels))
    whole = torch.cat([output.sequences, second], dim=1)
    options = {"cache": cache_of(output), "max_new_tokens": 2}
    model.generate(input_ids=whole, pixel_values=given["pixel_values"], **options)
    assert seen == []


# Assistants -------------------------------------------------------------------------------------------------------


def test_an_assistant_encodes_images_itself(model, built, inputs, tmp_path, monkeypatch):
    """A smaller assistant encodes image and perception itself; its width is not the model's."""
    from transformers import LlamaForCausalLM

    tiny.write_assets(tmp_path)
    words = len(built[1].tokenizer)
    small = tiny.host_config(hidden_size=32, intermediate_size=48, num_hidden_layers=3, vocab_size=words)
    LlamaForCausalLM(small).save_pretrained(tmp_path / "host")
    assistant, _ = tiny.made(host={"reference": str(tmp_path / "host")},
                             vision={"reference": str(tmp_path / "vision.safetensors")})  # fmt: skip
    row = {name: value[:1] for name, value in inputs.items()}
    seen = []
    forward = assistant.images.vision.forward
    monkeypatch.setattr(assistant.images.vision, "forward", lambda pixels: seen.append(len(pixels)) or forward(pixels))
    assert torch.equal(generate(model, row, assistant_model=assistant), generate(model, row))
    assert seen == [1, 1], "the image and its map, once for all rounds"


def test_an_assistant_that_agrees_saves_passes(model, inputs, monkeypatch):
    row = {name: value[:1] for name, value in inputs.items()}
    plain = generate(model, row, max_new_tokens=12, min_new_tokens=12)
    assistant, _ = tiny.made()
    assistant.generation_config.assistant_confidence_threshold = 0.0  # it always says five tokens
    assistant.generation_config.num_assistant_tokens = 5
    passes = []
    forward = model.host.forward
    monkeypatch.setattr(model.host, "forward", lambda **kwargs: passes.append(1) or forward(**kwargs))
    assert torch.equal(generate(model, row, max_new_tokens=12, min_new_tokens=12, assistant_model=assistant), plain)
    assert len(passes) <= 3, "an assistant that saw nothing, or less, would say other tokens"


def test_leaving_before_the_last_mixer_is_refused(model, inputs):
    with pytest.raises(PromptError, match="would leave mixers out; use prompt_lookup_num_tokens"):
        generate(model, inputs, assistant_early_exit=1)


# Prompts of all kinds in one batch, through the processor ---------------------------------------------------------

PROMPTS = (
    "<image>What color?",
    "No image at all. yes or no?",
    "First <image>red then <image> blue: is it the same?",
    "<image><image>Both?",
)
SEEN = (tiny.seen("red circle"), tiny.seen("green"), None, tiny.seen("blue"), tiny.seen("black", "red"))


@pytest.fixture
def mixed(processor):
    images = [[tiny.picture(c) for c in row] for row in (["red"], [], ["green", "blue"], ["black", "red"])]
    together = processor(images=images, text=list(PROMPTS), perceptions=SEEN)
    shares, start = [], 0
    for prompt, pictures in zip(PROMPTS, images, strict=True):
        own = SEEN[start : start + len(pictures)]
        shares.append(processor(images=pictures or None, text=[prompt], perceptions=own if pictures else None))
        start += len(pictures)
    return together, shares


@pytest.mark.parametrize("mode", MODES)
def test_each_prompt_of_a_batch_is_answered_as_alone(model, mixed, mode):
    together, alone = mixed
    answers = generate(model, together, **MODES[mode])
    assert len({tuple(row) for row in answers.tolist()}) == len(PROMPTS)
    for answer, inputs in zip(answers, alone, strict=True):
        assert torch.equal(generate(model, inputs, **MODES[mode])[0], answer)


def test_an_image_in_the_middle_of_a_prompt_counts_where_it_stands(model, processor):
    texts = ["<image> red <image> blue: same?", "<image> <image> red blue: same?"]
    pictures = [tiny.picture("red"), tiny.picture("blue")]
    logits = []
    for order in (pictures, pictures[::-1]):
        with torch.no_grad():
            inputs = processor(images=[order] * 2, text=texts, perceptions=[SEEN[0]] * 4)
            logits.append(model(**inputs).logits[:, -1])
    assert (logits[0] - logits[1]).abs().amax(dim=1).min() > 1e-3 and (logits[0][0] - logits[0][1]).abs().max() > 1e-3
