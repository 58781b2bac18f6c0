"""Check an expert against the contract; ``check_expert`` reports the first break in one sentence.

Knows: the assumptions of the runner, the cache and the verbalizer. It calls the expert on pictures that break careless
code and compares the results with each other. It does not measure the expert's accuracy; that is for the plugin's own
tests. Modules: ``declaration`` (nothing is loaded), ``behaviour`` (results), ``lifecycle`` (loading, unloading,
threads), ``samples`` (the pictures) and ``pytest_plugin``. Importing this package imports none of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from moai.lazy_names import lazy_names

if TYPE_CHECKING:
    from PIL.Image import Image

    from moai.expert import Expert
    from moai.testing.behaviour import check_perceive
    from moai.testing.declaration import check_cache_key, check_declaration, check_options, check_registration_is_light
    from moai.testing.lifecycle import check_threads, check_unload
    from moai.testing.samples import sample_context, sample_images
    from moai.types import Perception

_HOMES = {
    "check_cache_key": "moai.testing.declaration",
    "check_declaration": "moai.testing.declaration",
    "check_options": "moai.testing.declaration",
    "check_perceive": "moai.testing.behaviour",
    "check_registration_is_light": "moai.testing.declaration",
    "check_threads": "moai.testing.lifecycle",
    "check_unload": "moai.testing.lifecycle",
    "sample_context": "moai.testing.samples",
    "sample_images": "moai.testing.samples",
}
__all__ = [
    "check_cache_key",
    "check_declaration",
    "check_expert",
    "check_options",
    "check_perceive",
    "check_registration_is_light",
    "check_threads",
    "check_unload",
    "sample_context",
    "sample_images",
]


def check_expert(
    expert: Expert | type[Expert],
    images: Sequence[Image] | None = None,
    contexts: Sequence[Perception] | None = None,
) -> None:
    """Check an expert against everything that ``moai`` relies on.

    Args:
        expert: a class, which is built with its default options, or an instance.
        images: RGB pictures to use instead of :func:`sample_images`.
        contexts: one perception per image for an expert with ``requires``, instead of :func:`sample_context`.

    Raises:
        AssertionError: the first break of the contract, in a sentence.
    """
    from moai.testing import behaviour, declaration, lifecycle, samples

    kind = expert if isinstance(expert, type) else type(expert)
    declaration.check_declaration(kind)
    declaration.check_registration_is_light(kind)
    declaration.check_options(kind)
    declaration.check_cache_key(expert)
    instance = expert() if isinstance(expert, type) else expert
    images = list(images if images is not None else samples.sample_images())
    if contexts is None:
        contexts = [samples.sample_context(kind.requires)] * len(images)
    behaviour.require(len(contexts) == len(images), f"{len(contexts)} contexts for {len(images)} images")
    contexts = list(contexts)

    def perceive() -> list[Perception]:
        first = behaviour.check_perceive(instance, images, contexts)
        lifecycle.check_threads(instance, images, contexts, first)
        return first

    first = lifecycle.check_unload(instance, perceive)
    again = lifecycle.check_unload(instance, lambda: behaviour.call(instance, images[:1], contexts[:1]))
    behaviour.same(first[:1], again, "after unload() and load() perceive returns something else")


if not TYPE_CHECKING:  # a type checker would take every name for one of ours
    __getattr__, __dir__ = lazy_names(__name__, _HOMES)
