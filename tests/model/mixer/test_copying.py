"""Copied words: the host's own rows, where attention lies, by a gate that starts closed; and nothing else changes."""

import pytest
import tiny
import torch

from moai.errors import PromptError, RecipeError
from moai.model.mixer.copying import Copying, mean_row
from moai.model.mixer.inputs import Auxiliary
from moai.model.norms import rms_normalize

QUESTIONS = ("What color?", "Is there a red shape in it, or none?", "Which?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"), None)
MIXER = {"copy_words": True, "null_token": True}
WORDS = ("input_ids", "attention_mask", "pixel_mask")


@pytest.fixture(scope="module")
def made():
    return tiny.made(mixer=MIXER)  # with noise on every weight, the gates included


@pytest.fixture
def inputs(made):
    return tiny.prompt_inputs(made[1], QUESTIONS, PERCEPTIONS)


def without(model, forward):
    """What ``forward`` gives with the gates shut."""
    gates = [mixer.copying.gate for mixer in model.mixers.values()]
    kept = [(gate.weight.detach().clone(), gate.bias.detach().clone()) for gate in gates]
    with torch.no_grad():
        for gate in gates:
            gate.weight.zero_()
            gate.bias.zero_()
        found = forward()
        for gate, (weight, bias) in zip(gates, kept, strict=True):
            gate.weight.copy_(weight)
            gate.bias.copy_(bias)
    return found


def test_a_gate_opens_from_nothing_and_lets_words_through():
    torch.manual_seed(0)
    copying, query = Copying(16, heads=2), torch.randn(3, 2, 16)
    read, sources = torch.rand(3, 2, 2, 5).softmax(dim=-1), torch.randn(3, 5, 16)
    fresh = copying(query, read, sources)
    assert not fresh.any()
    (fresh * torch.randn(3, 2, 16)).sum().backward()
    assert copying.gate.weight.grad.abs().min() > 0
    with torch.no_grad():
        copying.gate.bias.copy_(torch.tensor([1.0, -2.0]))
        expected = (read[1, 0] - 2 * read[1, 1]) @ sources[1]  # a token at a time
        assert torch.allclose(copying(query, read, sources)[1], expected, atol=1e-6)


def test_sources_are_the_rows_of_the_output_layer_for_each_word():
    model, processor = tiny.made(mixer=MIXER, compressor={"latents": 64})
    inputs = processor.perceptions.auxiliary([[PERCEPTIONS[0]], [PERCEPTIONS[1]], []])
    ids, mask = inputs["aux_input_ids"], inputs["aux_attention_mask"]
    maps = inputs["aux_pixel_mask"]
    sources = model.auxiliary.sources(ids, mask, maps)
    table = model.get_output_embeddings().weight.detach()
    rows = rms_normalize(table - table.mean(dim=0))
    assert torch.allclose(mean_row(table), table.mean(dim=0), atol=1e-6)
    assert sources.shape[:2] == (3, len(model.auxiliary.compressor.latents)) and not sources[2].any()
    for row in (0, 1):
        words = ids[row][mask[row].bool()].tolist()
        length = len(words) + int(maps[row].sum()) * model.config.image_tokens
        starts = [slot * length // sources.shape[1] for slot in range(sources.shape[1])]
        assert starts[-1] >= len(words)  # a map has tokens too, and no words
        for slot, start in enumerate(starts):
            expected = rows[words[start]] if start < len(words) else torch.zeros(tiny.WIDTH)
            assert torch.allclose(sources[row, slot], expected, atol=1e-5)


def test_only_the_token_that_answers_takes_words(inputs):
    """And rows depend on neither their neighbours, nor padding, nor whether anything was seen elsewhere."""
    model, processor = tiny.made(mixer={**MIXER, "layers": [2]})  # a second mixer would hand on what it took
    with torch.no_grad():
        logits = model(**inputs).logits
        shut = without(model, lambda: model(**inputs).logits)
        moved = (logits - shut).abs().amax(dim=-1)
        assert (moved[:2, -1] > 1e-3).all() and not moved[2].any()  # the third row saw nothing
        assert not moved[:, :-1].any()
        for row, question in enumerate(QUESTIONS):
            shown = [tiny.picture(tiny.COLORS[row])]
            alone = tiny.prompt_inputs(processor, [question], [PERCEPTIONS[row]], shown)
            assert torch.allclose(model(**alone).logits[0, -1], logits[row, -1], atol=1e-4)


def test_a_word_that_is_read_for_sure_is_the_answer(made, inputs):
    """Attention on one compressed token, gates wide open, in the last mixer: its word is the answer."""
    model, _ = tiny.made(mixer={**MIXER, "layers": [tiny.LAYERS - 1], "tie_qk_at_init": True})
    words = (inputs["aux_input_ids"], inputs["aux_attention_mask"])
    sources = model.auxiliary.sources(*words, inputs.get("aux_pixel_mask"))
    [mixer] = model.mixers.values()
    slot = 3
    with torch.no_grad():
        mixer.copying.gate.bias.fill_(20.0)
        mixer.attention["language_aux"].weights = lambda x, context, mask: (
            torch.nn.functional.one_hot(torch.tensor(slot), context.shape[1]).float().expand(len(x), 2, 1, -1)
        )
        found = model(**inputs).logits[:2, -1].argmax(dim=-1)
        table = model.get_output_embeddings().weight
        rows = rms_normalize(table - table.mean(dim=0))
    assert torch.equal(found, (rows @ sources[:2, slot].T).argmax(dim=0))


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"use_cache": False}, {"num_return_sequences": 2}])
def test_generation_copies_as_the_forward_does(made, inputs, options):
    model, _ = made
    settings = {"max_new_tokens": 5, "min_new_tokens": 5, "do_sample": False, "num_beams": 2, **options}
    whole = model.generate(**inputs, **settings)
    for row in range(2):
        one = {name: value[row : row + 1] for name, value in inputs.items()}
        alone = model.generate(**one, **settings)
        times = settings.get("num_return_sequences", 1)
        assert torch.equal(alone, whole[row * times : (row + 1) * times])
    with torch.no_grad():
        first = model(**inputs).logits[:, -1].argmax(dim=-1)
    greedy = model.generate(**inputs, max_new_tokens=1, do_sample=False)[:, -1]
    assert torch.equal(greedy, first)


def test_compressed_tokens_without_their_words_are_refused(made, inputs):
    model, _ = made
    aux = {name: inputs.pop(name) for name in list(inputs) if name.startswith("aux_")}
    given = {name.removeprefix("aux_"): value for name, value in aux.items()}
    with torch.no_grad():
        states, mask = model.auxiliary(**given)
        with pytest.raises(PromptError, match="this model copies or matches words, which aux does not hold"):
            model(**inputs, aux=Auxiliary(states, mask))
        whole = model.auxiliary.encode(**given)
        assert torch.equal(whole.sources, model.auxiliary.sources(*(given.get(n) for n in WORDS)))
        assert torch.equal(model(**inputs, aux=whole).logits, model(**inputs, **aux).logits)


def test_latents_that_start_from_no_words_have_none_to_copy(made, inputs):
    with pytest.raises(ValueError, match=r"arithmetic: published has no .*mixer\.copy_words.*; use arithmetic: moai"):
        tiny.recipe(mixer=MIXER, arithmetic="published")
    model, _ = made
    model.auxiliary.compressor.published = True
    try:
        with pytest.raises(RecipeError, match="copy_words needs arithmetic: moai"):
            model.auxiliary.sources(inputs["aux_input_ids"], inputs["aux_attention_mask"])
    finally:
        model.auxiliary.compressor.published = False


def test_a_saved_model_copies_as_before(made, inputs, tmp_path):
    model, _ = made
    model.save_pretrained(tmp_path)
    again = type(model).from_pretrained(tmp_path)
    with torch.no_grad():
        assert torch.equal(again(**inputs).logits, model(**inputs).logits)
