"""Bridge the differences between versions of transformers and torch: the only file that knows them.

Knows: names that were changed, and names that are private upstream. Differences are found in the names that are there,
never by comparing version numbers, so that an unknown version is handled like the one it resembles.

transformers 5.24 renamed the key-value cache from ``past_key_values`` to ``cache``: in forwards, in outputs and in what
``generate`` passes. The old name is a deprecated keyword until 5.40. Both names are taken here in every version.
"""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar, cast

from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode
from transformers import PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from moai.errors import PromptError

F = TypeVar("F", bound=Callable[..., Any])

__all__ = [
    "CACHE",
    "CACHE_NAMES",
    "FakeTensorMode",
    "attention_implementation",
    "cache_names",
    "cache_of",
    "has_model",
    "has_values",
    "is_compiled",
    "take_cache",
    "takes_cache",
    "without_bars",
]


@contextmanager
def without_bars() -> Iterator[None]:
    """Load with no progress bars of transformers, inside our own progress; those of downloads stay."""
    from transformers.utils import logging

    before = logging._tqdm_active  # its own switch would silence downloads as well
    logging._tqdm_active = False
    try:
        yield
    finally:
        logging._tqdm_active = before


CACHE_NAMES = ("cache", "past_key_values")
_FIELDS = {field.name for field in dataclasses.fields(CausalLMOutputWithPast)}
# What this version of transformers calls the cache, and what another does; an output's fields show it.
CACHE, OTHER = sorted(CACHE_NAMES, key=lambda name: name not in _FIELDS)


def take_cache(arguments: dict[str, Any]) -> Any:
    """Remove the key-value cache from keyword arguments, whatever its name, and return it; None without one.

    Raises:
        PromptError: two caches.
    """
    given = {name: arguments.pop(name) for name in CACHE_NAMES if name in arguments}
    caches = {name: cache for name, cache in given.items() if cache is not None}
    if len(caches) > 1:
        raise PromptError(f"both past_key_values and cache are given, two names of one thing; give {CACHE} alone")
    return next(iter(caches.values()), None)


def takes_cache(function: F) -> F:
    """Let a function with a parameter ``cache`` be given the key-value cache under either name.

    Its signature shows the name that this version of transformers uses, since ``generate`` reads signatures to tell
    which arguments a model has. By position the cache stays where it was.
    """
    signature = inspect.signature(function)

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        given = take_cache(kwargs)
        return function(*args, **kwargs) if given is None else function(*args, cache=given, **kwargs)

    parameters = [p.replace(name=CACHE) if name == "cache" else p for name, p in signature.parameters.items()]
    wrapped.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return cast(F, wrapped)


def cache_of(output: Any) -> Any:
    """Return the key-value cache in a model's output, whatever its name; None without one."""
    # An output of transformers has the right name, if only with None, and warns of the other one.
    return getattr(output, CACHE) if hasattr(output, CACHE) else getattr(output, OTHER, None)


def cache_names(function: Callable[..., Any]) -> tuple[str, ...]:
    """Return the names under which a function may take the cache, the likeliest first.

    Which of them works is for the caller to find out: a function may declare a name and ignore what comes with it.
    """
    parameters = inspect.signature(function).parameters
    return tuple(sorted(CACHE_NAMES, key=lambda name: (name not in parameters, name != CACHE)))


def has_model(auto: type, config: PreTrainedConfig) -> bool:
    """Say whether an Auto class of transformers knows a model for a configuration."""
    return type(config) in auto._model_mapping  # type: ignore[attr-defined]


def has_values(tensor: Tensor) -> bool:
    """Say whether a tensor has values: on "meta", and among the fake tensors of a plan, it has a shape alone."""
    return not (tensor.is_meta or isinstance(tensor, FakeTensor))


def attention_implementation(config: PreTrainedConfig) -> str | None:
    """Return the attention that a model runs with ("sdpa", "eager", ..); None where none was chosen yet."""
    return config._attn_implementation


def is_compiled(module: nn.Module) -> bool:
    """Say whether a module, or one inside it, was compiled in place."""
    return any(part._compiled_call_impl is not None for part in module.modules())
