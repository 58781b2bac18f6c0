"""Make the conditions of an evaluation: the perception of each image that the model is given.

Knows: samples and perceptions; nothing of models. ``on`` is the image's own perception, ``off`` none,
``shuffled`` another image's, ``other-image`` another image's together with that image itself, ``oracle`` the data
set's ground truth, ``without:EXPERT`` that of the other experts where one is missing, ``noisy:P`` the perception with a
share of its words replaced. A view depends on the images and the seed only, so that all questions about one image get
the same perception.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence

from moai.errors import MoaiError, RecipeError, nearest
from moai.evaluation.noise import noisy
from moai.types import Perception, Sample

CONDITIONS = ("on", "off", "shuffled", "oracle", "other-image", "leave-one-out", "without:EXPERT", "noisy:P")
WITHOUT, NOISY = "without:", "noisy:"
OTHER_IMAGE = "other-image"
_FIXED = ("on", "off", "shuffled", "oracle", OTHER_IMAGE)
MOVED = ("shuffled", OTHER_IMAGE)  # conditions that give another image's perception

View = Mapping[str, "Perception | None"]  # image id -> what the model is given of that image


def expand_conditions(names: Iterable[str], experts: Sequence[str] = ()) -> list[str]:
    """Check the names, write shares alike, and replace ``leave-one-out`` by ``without:EXPERT`` for each expert.

    Raises:
        RecipeError: an unknown condition or expert, a share outside (0, 1], ``leave-one-out`` of a run without
            experts, no condition at all, or one that comes twice.
    """
    found: list[str] = []
    for name in names:
        if name == "leave-one-out" and not experts:
            raise RecipeError("'leave-one-out' needs experts and this run has none; leave the condition out")
        found += [WITHOUT + expert for expert in experts] if name == "leave-one-out" else [_checked(name, experts)]
    if not found or len(set(found)) != len(found):
        raise RecipeError(f"name each condition once, at least one; known: {', '.join(CONDITIONS)}")
    return found


def left_out(conditions: Iterable[str]) -> list[str]:
    """Return the experts that the conditions leave out, one at a time."""
    return [name.removeprefix(WITHOUT) for name in conditions if name.startswith(WITHOUT)]


def make_views(
    conditions: Sequence[str],
    samples: Sequence[Sample],
    perceptions: Mapping[str, Perception],
    reduced: Mapping[str, Mapping[str, Perception]],
    seed: int,
) -> dict[str, View]:
    """Return condition -> image id -> the perception that the model is given.

    Args:
        conditions: as ``expand_conditions`` returns them.
        samples: whose images are viewed.
        perceptions: image id -> perception by all experts.
        reduced: expert -> image id -> perception by the others (``moai.data.perceive``).
        seed: of the shuffling and of the noise.

    Raises:
        RecipeError: ``oracle``, and a sample has no ground truth.
        MoaiError: an image without a perception, or ``shuffled`` or ``other-image`` with fewer than two images.
    """
    images = list(dict.fromkeys(image for sample in samples for image in sample.image_ids))
    return {name: _view(name, images, samples, perceptions, reduced, seed) for name in conditions}


def derange(image_ids: Iterable[str], seed: int) -> dict[str, str]:
    """Give every image another image's id, each id used once; depends on the set of ids and the seed only.

    Raises:
        MoaiError: fewer than two images.
    """
    ids = sorted(image_ids)
    if len(ids) < 2:
        raise MoaiError(
            "the conditions 'shuffled' and 'other-image' need at least two images; evaluate more, or leave them out"
        )
    mixed, rng = list(ids), random.Random(seed)
    for last in range(len(mixed) - 1, 0, -1):  # Sattolo's shuffle: one single cycle, so that no image stays in place
        other = rng.randrange(last)
        mixed[last], mixed[other] = mixed[other], mixed[last]
    return dict(zip(ids, mixed, strict=True))


def _view(name, images: list[str], samples, perceptions, reduced, seed: int) -> View:
    if name == "off":
        return dict.fromkeys(images)
    if name == "oracle":
        return _truths(samples)
    source = reduced.get(name.removeprefix(WITHOUT), {}) if name.startswith(WITHOUT) else perceptions
    lacking = sorted(set(images) - set(source))
    if lacking:
        raise MoaiError(f"{len(lacking)} images have no perception, first '{lacking[0]}'; perceive them first")
    if name in MOVED:
        donors = derange(images, seed)
        return {image: perceptions[donors[image]] for image in images}
    own = {image: source[image] for image in images}
    return noisy(own, float(name.removeprefix(NOISY)), seed) if name.startswith(NOISY) else own


def _truths(samples: Sequence[Sample]) -> View:
    truths = {
        image: truth
        for sample in samples
        for image, truth in zip(sample.image_ids, sample.truths or [None] * len(sample.image_ids), strict=True)
    }
    lacking = sorted(image for image, truth in truths.items() if truth is None)
    if lacking:
        raise RecipeError(
            f"'oracle' needs ground truth, and the data set has none for {len(lacking)} of {len(truths)} images, "
            f"first '{lacking[0]}'; leave the condition out, or evaluate on a data set whose samples have a truth"
        )
    return truths


def _checked(name: str, experts: Sequence[str]) -> str:
    if name.startswith(NOISY):
        return f"{NOISY}{_share(name.removeprefix(NOISY)):g}"
    if name.startswith(WITHOUT):
        expert = name.removeprefix(WITHOUT)
        if expert not in experts:
            raise RecipeError(f"'{name}': the run has no expert '{expert}'{nearest(expert, experts)}")
    elif name not in _FIXED:
        raise RecipeError(f"there is no condition '{name}'{nearest(name, CONDITIONS)}")
    return name


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = float("nan")
    if not 0 < share <= 1:
        raise RecipeError(f"'noisy:{text}': give the share of words to replace, above 0 and up to 1, as in noisy:0.3")
    return share
