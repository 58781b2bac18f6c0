"""Attribution: rows sum to one, lead to the right word, do not depend on the batch, and cost nothing unasked."""

import pytest
import tiny
import torch

from moai.errors import PromptError
from moai.model.analysis.attribution import Trace, _rollout, patches
from moai.model.encoders.compressor import Compressor
from moai.model.mixer.forward_context import current

QUESTIONS = ("What color?", "Is there a red shape in it, or none?", "Hm?")
PERCEPTIONS = (tiny.seen("red circle"), tiny.seen("blue box", "green disc"), None)


@pytest.fixture
def inputs(built):
    return tiny.prompt_inputs(built[1], QUESTIONS, PERCEPTIONS)


@torch.no_grad()
def attribute(model, inputs):
    return model(**inputs, return_attribution=True).attribution


def test_rows_sum_to_one_where_there_is_something_to_read(model, inputs):
    read = attribute(model, inputs)
    assert [mixer.layer for mixer in read.mixers] == [0, 2]
    for number, mixer in enumerate(read.mixers):
        masks = (read.image_mask, read.language_mask)
        for taken, attended, mask in zip((mixer.image, mixer.language), read.attended(number), masks, strict=True):
            assert torch.allclose(taken.gates.sum(dim=-1), mask.float(), atol=1e-5)
            perceived = mask & torch.tensor([[True], [True], [False]])
            assert torch.allclose(taken.latents.sum(dim=-1), perceived.float(), atol=1e-5)
            assert torch.allclose(attended.sum(dim=-1), perceived.float(), atol=1e-5)
            assert not attended[~read.aux_mask[:, None].expand_as(attended)].any(), "padding was read"
            assert (taken.size[perceived] > 0).all() and not taken.size[~perceived].any()
    assert torch.allclose(read.shares().sum(dim=-1), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5)


def test_the_gates_are_those_of_the_forward(model, inputs):
    read = attribute(model, inputs)
    for mixer, (image, language) in zip(read.mixers, tiny.gates_of(model, lambda: model(**inputs)), strict=True):
        assert torch.allclose(mixer.image.gates, image * read.image_mask[..., None], atol=1e-5)
        assert torch.allclose(mixer.language.gates, language * read.language_mask[..., None], atol=1e-5)


def test_a_row_does_not_depend_on_its_neighbours_and_repeats_exactly(model, built, inputs):
    together, again = attribute(model, inputs), attribute(model, inputs)
    assert torch.equal(together.shares(), again.shares())
    for row in range(2):
        image = [tiny.picture(tiny.COLORS[row])]
        alone = tiny.prompt_inputs(built[1], QUESTIONS[row : row + 1], PERCEPTIONS[row : row + 1], image)
        mixers, shares = attribute(model, alone).row(0)
        expected_mixers, expected = together.row(row)
        assert shares == pytest.approx(expected, abs=1e-4)
        for one, other in zip(mixers, expected_mixers, strict=True):
            assert all(a == pytest.approx(b, abs=1e-4) for a, b in zip(one[1:], other[1:], strict=True))


def test_attribution_changes_no_logit(model, inputs):
    with torch.no_grad():
        assert torch.equal(model(**inputs, return_attribution=True).logits, model(**inputs).logits)


def test_it_costs_nothing_unless_it_is_asked_for(model, inputs, monkeypatch):
    attribute(model, inputs)

    def fail(*_, **__):
        raise AssertionError("looked inside")

    for name in ("__init__", "mixed", "compressing", "step"):
        monkeypatch.setattr(Trace, name, fail)
    monkeypatch.setattr(type(next(iter(model.mixers.values()))), "gate_weights", fail)
    with torch.no_grad():
        output = model(**inputs)
    assert output.attribution is None


def test_nothing_is_traced_after_an_error(model, inputs, monkeypatch):
    def stop(*_, **__):
        raise ZeroDivisionError

    monkeypatch.setattr(model.host, "forward", stop)
    with pytest.raises(ZeroDivisionError):
        model(**inputs, return_attribution=True)
    assert current(model.graft) is None


def compressor(width=16, **changes):
    torch.manual_seed(0)
    settings = {"latents": 4, "depth": 2, "heads": 2, "head_width": 8}
    return Compressor(width, **{**settings, **changes})


def rolled(made, x, mask, *marks):
    """Run a compressor with a trace, as a model's forward does."""
    trace = Trace([])
    with torch.no_grad():
        made(x, mask, *marks, trace=trace)
    return _rollout(*trace.compressed, trace.steps), trace.steps


@pytest.mark.parametrize("left", [True, False])
def test_untrained_latents_are_the_tokens_they_start_from(left):
    mask = torch.tensor([[0, 0, 1, 1, 1, 1, 1, 1]]).bool()
    mask = mask if left else mask.flip(1)
    found, _ = rolled(compressor(), torch.randn(1, 8, 16), mask)
    start = 2 if left else 0
    assert found.argmax(dim=-1).tolist() == [[start + i * 6 // 4 for i in range(4)]]
    assert found.max(dim=-1).values.min() == 1.0  # its attention adds nothing yet, whatever it looks at


def test_latents_do_not_lead_back_to_marks():
    mask, marks = torch.ones(1, 8).bool(), torch.zeros(1, 8).bool()
    marks[0, [0, 3, 7]] = True
    found, _ = rolled(compressor(latents=5), torch.randn(1, 8, 16), mask, marks)
    assert found.argmax(dim=-1).tolist() == [[1, 2, 4, 5, 6]]


def test_the_rollout_is_what_a_straight_computation_gives():
    made = compressor()
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    mask = torch.tensor([[1, 1, 1, 1, 1, 0]]).bool()
    found, steps = rolled(made, torch.randn(1, 6, 16), mask)
    expected = torch.zeros(4, 6)
    for latent in range(4):
        expected[latent, latent * 5 // 4] = 1.0
    for weights, part in steps:
        assert torch.allclose(weights.sum(dim=-1), torch.ones(1, 4)) and (part > 0.05).all() and (part < 0.95).all()
        rows = []
        for latent in range(4):
            read = weights[0, latent, :6].clone()
            for other in range(4):
                read += weights[0, latent, 6 + other] * expected[other]
            rows.append(part[0, latent] * read + (1 - part[0, latent]) * expected[latent])
        expected = torch.stack(rows)
    assert torch.allclose(found[0], expected / expected.sum(dim=-1, keepdim=True), atol=1e-6)


def test_in_the_published_form_attention_alone_leads_back():
    made = compressor(arithmetic="published", depth=1)
    found, [(weights, _)] = rolled(made, torch.randn(2, 5, 16), torch.ones(2, 5).bool())
    own = weights[..., :5]
    assert torch.allclose(found, own / own.sum(dim=-1, keepdim=True), atol=1e-6)


def test_a_decisive_word_gets_the_mass():
    """Queries and keys are made equal, so that a question's token attends to its own word among the auxiliary ones."""
    model, processor = tiny.made(
        noise=0.0, mixer={"layers": [0], "rank": 64, "qk_norm_scale": 60.0}, compressor={"latents": 96},
        vision={"panoptic_map": False},
    )  # fmt: skip
    module = model.mixers["0"].attention["language_aux"]
    module.key.load_state_dict(module.query.state_dict())
    words = tiny.seen("yes red", "no green")
    inputs = tiny.prompt_inputs(processor, ["Is it red?", "Is it green?"], [words, words])
    read = attribute(model, inputs)
    for row, color in enumerate((" red", " green")):
        [token] = processor.plain_ids(color)
        place = (inputs["input_ids"][row, read.language_index[row]] == token).nonzero()[0, 0]
        attended = read.attended(0)[1][row, place]
        assert attended[inputs["aux_input_ids"][row] == token].sum() > 0.9


def test_generate_hands_it_on_for_prompts_not_beams(model, inputs):
    options = {"max_new_tokens": 2, "num_beams": 2, "num_return_sequences": 2, "return_dict_in_generate": True}
    output = model.generate(**inputs, **options, return_attribution=True)
    assert len(output.sequences) == 6
    assert torch.equal(output.attribution.shares(), attribute(model, inputs).shares())
    assert torch.equal(output.sequences, model.generate(**inputs, **options).sequences)


def test_generate_needs_an_output_to_put_it_in(model, inputs):
    with pytest.raises(PromptError, match="return_dict_in_generate=True"):
        model.generate(**inputs, max_new_tokens=2, return_attribution=True)


def test_what_cannot_be_led_back_is_refused(model, inputs):
    with torch.no_grad():
        aux = model.auxiliary.encode(*(inputs[f"aux_{n}"] for n in ("input_ids", "attention_mask")))
    rest = {name: value for name, value in inputs.items() if not name.startswith("aux")}
    with pytest.raises(PromptError, match="give aux_input_ids instead of aux"):
        model(**rest, aux=aux, return_attribution=True)


def test_a_model_without_mixers_has_nothing_to_show(inputs):
    bare, _ = tiny.made(mixer={"layers": []})
    with pytest.raises(PromptError, match="nothing to attribute"):
        bare(**inputs, return_attribution=True)


def test_bfloat16_hosts_give_full_precision_numbers(inputs):
    model, _ = tiny.made(host={"dtype": "bfloat16"})
    read = attribute(model, inputs)
    assert read.rollout.dtype == read.shares().dtype == torch.float32
    assert torch.allclose(read.shares().sum(dim=-1), torch.tensor([1.0, 1.0, 0.0]), atol=1e-5)


def test_compiled_models_are_analysed_all_the_same(inputs, monkeypatch):
    model, _ = tiny.made()
    expected = attribute(model, inputs).shares()
    model.auxiliary.compressor.compile(backend="eager")  # the host's hooks only check for a trace
    with torch.no_grad():
        model(**inputs)
    assert torch.equal(attribute(model, inputs).shares(), expected)  # bits: the backend "eager" runs the same kernels


def test_which_image_tokens_are_patches(model):
    assert patches(model, 4) == (2, 2) and patches(model, 3) is None and patches(model, 0) is None
    model.images.connector, own = torch.nn.Identity(), model.images.connector
    try:
        assert patches(model, 4) is None
        model.images.connector.spatial = True
        assert patches(model, 4) == (2, 2)
    finally:
        model.images.connector = own
