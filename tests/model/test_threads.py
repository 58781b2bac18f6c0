"""A running call owns its state: any number of threads on one model equal the sequential results."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import tiny
import torch

from moai.types import Conversation

PLAIN: dict = {}
CONTEXT = {  # words in context run the host's lower layers within a forward; copied words need their sources
    "perception": {"experts": ["tiny-panoptic"], "style": "compact", "context_layer": 1, "fact_context": True},
    "mixer": {"layers": [0, 2], "rank": 8, "heads": 2, "question_context": 1.0, "copy_words": True, "null_token": True,
              "qk_norm_scale": None},
}  # fmt: skip
THREADS = 4


@pytest.fixture(scope="module", params=[PLAIN, CONTEXT], ids=["plain", "context"])
def made(request):
    return tiny.made(**request.param)


def batches(processor, count, labels=False):
    rows = []
    for index in range(count):
        asked = "What color is it? " * (1 + index % 3)
        conversation = Conversation.ask(asked, [tiny.picture(tiny.COLORS[index % 4])], "red" if labels else None)
        seen = tiny.seen(tiny.COLORS[index * 7 % 4], *(["circle"] * (index % 2)))
        rows.append(dict(processor.batch([conversation], [[seen]], labels=labels)))
    return rows


def in_threads(function, items):
    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(function, items))


def test_generating(made):
    model, processor = made
    rows = batches(processor, 24)
    expected = [model.generate(**row, max_new_tokens=6, do_sample=False) for row in rows]
    assert len({tuple(row[0].tolist()) for row in expected}) > 4  # they differ, or nothing would be shown
    found = in_threads(lambda row: model.generate(**row, max_new_tokens=6, do_sample=False), rows)
    assert all(torch.equal(a, b) for a, b in zip(expected, found, strict=True))


def test_forwards_and_attributions(made):
    model, processor = made
    rows = batches(processor, 24)

    def run(numbered):  # traced calls beside others
        number, row = numbered
        with torch.no_grad():
            output = model(**row, return_attribution=number % 2 == 0)
        return output.logits, None if output.attribution is None else output.attribution.shares()

    expected = [run(numbered) for numbered in enumerate(rows)]
    for (logits, shares), (other, others) in zip(expected, in_threads(run, enumerate(rows)), strict=True):
        assert torch.equal(logits, other)
        assert shares is None or torch.equal(shares, others)


@pytest.mark.parametrize("checkpointed", [False, True])
def test_gradients_with_activation_checkpointing(made, checkpointed):
    """The backward pass runs the hooks again: with the state of its own call, not of one that runs or ran since."""
    model, processor = made
    rows, parameters = batches(processor, 6, labels=True), list(model.adapter_parameters().values())

    def gradients(loss):
        return [torch.zeros(()) if g is None else g for g in torch.autograd.grad(loss, parameters, allow_unused=True)]

    model.train()
    expected = [gradients(model(**row).loss) for row in rows]
    if checkpointed:
        model.activation_checkpointing_enable()
    try:
        losses = [model(**row).loss for row in rows]
        late = [gradients(loss) for loss in reversed(losses)][::-1]
        threaded = in_threads(lambda row: gradients(model(**row).loss), rows)
        handed = in_threads(gradients, [model(**row).loss for row in rows])  # another thread runs the backward pass
    finally:
        model.activation_checkpointing_disable()
        model.eval()
    for found in (late, threaded, handed):
        for row, others in zip(expected, found, strict=True):
            for a, b in zip(row, others, strict=True):
                torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_two_models_in_one_thread_do_not_meet(made):
    model, processor = made
    [row] = batches(processor, 1)
    other = tiny.made(mixer={"layers": [1]})[0]
    expected = model(**row).logits
    other(**row)
    assert torch.equal(model(**row).logits, expected)
