"""Prefill and decoding: an augmented model against its own bare host, same sequence, same batch.

Knows: forwards and caches. The augmented prefill includes condensing the words of perception; the vision encoder is
left out, since any host that takes images needs one. Adapters are fixed, as they are where `moai ask` and `moai eval`
answer.
"""

from __future__ import annotations

import torch
from measure import Row, in_turns, operations, ratio, spread
from subjects import augmented, bare, batch

from moai.compat import CACHE, cache_of
from moai.model.encoders.image_input import Prompt

PREFILL, DECODE, READING = 1.15, 0.97, 0.9


def run(quick: bool, repeats: int) -> list[Row]:
    """Prefill at two sizes, decoding at the first."""
    image, prompt = (64, 32) if quick else (256, 64)
    rows = [*_prefill("smollm2", 2, image, prompt, repeats), _decode("smollm2", 2, image, prompt, repeats, quick)]
    rows.append(_decode("smollm2", 2, image, prompt, repeats, quick, reading=True))
    return [*rows, *_prefill("1b", 1, image, prompt, max(2, repeats // 2))]


@torch.no_grad()
def _prefill(shape: str, rows: int, image: int, prompt: int, repeats: int) -> list[Row]:
    model, inputs = augmented(shape, image).fix_adapters(), batch(shape, rows, image, prompt, aux=128)
    ids = inputs["input_ids"]
    features = inputs["image_features"] = model.images.encode(inputs.pop("pixel_values"), ids)
    window = Prompt(ids, None, ids == model.config.image_token_id, None)
    host, embeds = bare(shape), model.images.host_inputs(window, None, features, None, {})["inputs_embeds"]

    def ours() -> None:
        model(**inputs, use_cache=True, logits_to_keep=1)

    def theirs() -> None:
        host(inputs_embeds=embeds, attention_mask=inputs["attention_mask"], use_cache=True, logits_to_keep=1)

    counted = operations(ours), operations(theirs)
    slow, fast = in_turns(ours, theirs, repeats)
    return [
        Row(
            f"prefill, {shape} host: augmented over bare", ratio(slow, fast), PREFILL, at_most=True,
            floor=counted[0] / counted[1],
            detail={"augmented": spread(slow), "bare": spread(fast), "operations": counted, "batch": rows,
                    "sequence": image + prompt, "mixers": list(model.mixers), "adapters": "fixed"},
        )
    ]  # fmt: skip


@torch.no_grad()
def _decode(shape: str, rows: int, image: int, prompt: int, repeats: int, quick: bool, reading: bool = False) -> Row:
    model = augmented(shape, image, reading=reading).fix_adapters()
    inputs = batch(shape, rows, image, prompt, aux=128)
    host, length, steps = bare(shape), image + prompt, 8 if quick else 32
    ours = _Decoding(model, inputs, length, steps)
    theirs = _Decoding(host, {"input_ids": torch.full((rows, length), 5)}, length, steps)
    # In turns token by token: a machine that slows down for a moment then slows both.
    slow, fast = in_turns(ours, theirs, repeats * steps)
    counted = operations(ours), operations(theirs)
    return Row(
        f"decoding, {shape} host, tokens/s: {'answers read on' if reading else 'augmented'} over bare",
        ratio(fast, slow), READING if reading else DECODE, at_most=False,
        floor=counted[1] / counted[0],
        detail={"augmented": spread(slow), "bare": spread(fast), "operations": counted, "batch": rows, "steps": steps,
                "prompt": length},
    )  # fmt: skip


class _Decoding:
    """A prompt read into a cache; each call decodes one token, and every ``steps`` calls start again after it."""

    def __init__(self, model, inputs: dict[str, torch.Tensor], length: int, steps: int) -> None:
        self.model, self.length, self.steps, self.done = model, length, steps, 0
        rows = len(inputs["input_ids"])
        self.token, self.mask = torch.full((rows, 1), 5), torch.ones(rows, length + steps, dtype=torch.long)
        self.cache = cache_of(model(**inputs, use_cache=True, logits_to_keep=1))
        self.ids = torch.cat([inputs["input_ids"], self.token.expand(-1, steps)], dim=1)
        self.aux = None
        if getattr(model, "answers", False):  # what `generate` computes once for all tokens of an answer
            model._encode(inputs["input_ids"], given := dict(inputs))
            self.aux = given["aux"]

    def __call__(self) -> None:
        if self.done == self.steps:
            self.cache.crop(-self.steps)
            self.done = 0
        self.done += 1
        mask = self.mask[:, : self.length + self.done]
        more = {} if self.aux is None else {"aux": self.aux.at_window(self.ids[:, : self.length + self.done], 1)}
        more |= {"use_cache": True, "logits_to_keep": 1, CACHE: self.cache}
        self.model(input_ids=self.token, attention_mask=mask, **more)
