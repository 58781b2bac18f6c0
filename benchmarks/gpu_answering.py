"""Prefill and decoding on a GPU against the bare host: as they are, compiled, and with CUDA graphs.

Knows: forwards and caches. As in ``answering``, words of perception are condensed along, adapters are fixed, and the
vision encoder is left out, since any host that takes images needs one.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from gpu_subjects import augmented, batch, free_memory, random_host, sharing_copy, subject, synced
from measure import in_turns, ratio, spread
from torch import Tensor, nn
from transformers import StaticCache

from moai.compat import CACHE
from moai.model.encoders.image_input import Prompt
from moai.training.memory_plan.plan import RESERVE

GIB = 2**30
PREFILLS, TOKENS, WARM = 20, 64, 3  # timed prefills and tokens of each side; calls before, for compiling and recording
# How both sides run: arguments of ``compile``. Shapes stay the same, so that nothing is compiled twice.
MODES: dict[str, dict[str, Any] | None] = {
    "eager": None,
    "torch.compile": {"dynamic": False},
    "torch.compile, CUDA graphs": {"dynamic": False, "mode": "reduce-overhead"},
}
TRACED = {"dynamic": False, "backend": "eager"}  # on a CPU, where only the way through the code matters


def answer(name: str, device: torch.device, tiny: bool, until: float) -> Iterator[dict[str, Any]]:
    """Yield the ratios of prefill and decoding in each mode, while there is time."""
    one = subject(name, tiny)
    if one.missing:
        yield {"note": f"{name}: skipped, {one.missing}"}
        return
    made, free = one.plan(), free_memory(device)
    needs = made.answering() + RESERVE
    if free is not None and needs > free:
        text = f"it needs {needs / GIB:.1f} GiB by moai plan, and {free / GIB:.1f} are free"
        yield {"note": f"{name}, answering: skipped, {text}"}
        return
    host = random_host(one, device)
    bare = sharing_copy(host)  # before the mixers' hooks are on it
    model = augmented(one, host, device).fix_adapters()
    modes = list(MODES.items()) if device.type == "cuda" else [("eager", None), ("traced, not compiled", TRACED)]
    for number, (mode, arguments) in enumerate(modes):
        now = time.monotonic()
        if number and now >= until:
            yield {"note": f"{name}, {mode}: not measured, the time was over"}
            continue
        share = (until - now) / (len(modes) - number)
        if arguments is not None:
            compile_both(model, bare, arguments)
        for measure in (_prefill, _decode):
            yield {"model": name, "mode": mode, **measure(one, model, bare, device, share / 2)}


def compile_both(model: nn.Module, bare: nn.Module, arguments: dict[str, Any]) -> None:
    """Compile the augmented model's parts, and the bare host, in place of how they were compiled before."""
    torch.compiler.reset()
    model.compile(**arguments)
    bare.compile(**arguments)


def marked(work: Callable[[], Any], device: torch.device) -> Callable[[], Any]:
    """Tell CUDA graphs where a call begins, which may then use the memory of the one before; and wait for it."""

    def begun() -> Any:
        if device.type == "cuda":
            torch.compiler.cudagraph_mark_step_begin()
        return work()

    return synced(begun, device)


def _inputs(one: Any, model: Any) -> dict[str, Tensor]:
    """One prompt, without an answer; its image is encoded already."""
    made = batch(one, model, 1)
    length = int(made["prompt_mask"].sum())
    made = {name: t[:, :length] if name in ("input_ids", "prompt_mask") else t for name, t in made.items()}
    del made["labels"], made["attention_mask"]  # no padding
    made["image_features"] = model.images.encode(made.pop("pixel_values"), made["input_ids"])
    return made


@torch.no_grad()
def _prefill(one: Any, model: Any, bare: nn.Module, device: torch.device, seconds: float) -> dict[str, Any]:
    inputs = _inputs(one, model)
    ids = inputs["input_ids"]
    window = Prompt(ids, None, ids == model.config.image_token_id, None)
    embeds = model.images.host_inputs(window, None, inputs["image_features"], None, {})["inputs_embeds"]
    ours = marked(lambda: model(**inputs, use_cache=True, logits_to_keep=1), device)
    theirs = marked(lambda: bare(inputs_embeds=embeds, use_cache=True, logits_to_keep=1), device)
    _warm(ours, theirs)
    slow, fast = in_turns(ours, theirs, PREFILLS, warm=False, until=time.monotonic() + seconds)
    return _row("prefill", slow, fast, ids.shape[1])


@torch.no_grad()
def _decode(one: Any, model: Any, bare: nn.Module, device: torch.device, seconds: float) -> dict[str, Any]:
    inputs = _inputs(one, model)
    length = inputs["input_ids"].shape[1]
    ours = marked(Decoding(model, bare.config, inputs, length), device)
    ids = torch.full((1, length), 5, device=device)
    theirs = marked(Decoding(bare, bare.config, {"input_ids": ids}, length), device)
    _warm(ours, theirs)
    slow, fast = in_turns(ours, theirs, TOKENS, warm=False, until=time.monotonic() + seconds)
    return _row("decoding", slow, fast, length)


def _warm(*works: Callable[[], Any]) -> None:
    for _ in range(WARM):
        for work in works:
            work()


def _row(what: str, slow: list[float], fast: list[float], length: int) -> dict[str, Any]:
    return {
        "table": "answering", "what": what, "prompt": length, "ours_ms": 1000 * statistics.median(slow),
        "bare_ms": 1000 * statistics.median(fast), "ratio": ratio(slow, fast), "timed": len(slow),
        "detail": [spread(slow), spread(fast)],
    }  # fmt: skip


class Decoding:
    """A prompt that is read into a cache of fixed size; each call decodes one token more."""

    def __init__(self, model: Any, config: Any, inputs: dict[str, Tensor], length: int) -> None:
        self.model = model
        self.token = torch.full((1, 1), 5, device=inputs["input_ids"].device)
        self.cache = StaticCache(config=config, max_cache_len=length + WARM + TOKENS)
        with torch.compiler.set_stance("force_eager"):  # the cache's memory must not be that of a graph
            model(**inputs, use_cache=True, logits_to_keep=1, **{CACHE: self.cache})

    def __call__(self) -> Any:
        return self.model(input_ids=self.token, use_cache=True, logits_to_keep=1, **{CACHE: self.cache})
