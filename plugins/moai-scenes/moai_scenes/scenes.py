"""Generate `scenes`: drawn figures and printed words over photographs and textures, with questions and ground truth.

Knows: splits, numbers of scenes, and where pictures lie on disk. What a scene shows is drawn in `plan`, its
pixels in `render`, its questions in `questions`. The same seed gives the same scenes and questions on every
machine; the bytes of a picture also depend on the versions of Pillow, matplotlib and scikit-image, which are a part of
the folder's name.
"""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterable, Mapping, Sequence
from contextlib import nullcontext
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType

from moai.errors import AssetError, RecipeError, nearest
from moai.plugin_api import cache_dir, replacing, status
from moai.types import IMAGE, Conversation, Perception, Sample, Turn
from moai_scenes.backdrops import folder as backdrop_folder
from moai_scenes.backdrops import sources
from moai_scenes.plan import Scene, plan_scene
from moai_scenes.questions import ALL_KINDS, KINDS, ask, caption, word_question
from moai_scenes.render import render
from moai_scenes.truth import truth_of
from moai_scenes.words import LANGUAGES, SPLITS

VERSION = 1  # of the generator: raise it when a picture, a question or an answer may change
IMAGES = {"train": 2000, "validation": 300, "test": 500, "validation-unseen": 300, "test-unseen": 500}
SHARES: Mapping[str, float] = MappingProxyType({"ko": 0.1})


def scenes(
    split: str = "train",
    limit: int | None = None,
    seed: int = 0,
    images: int | None = None,
    folder: str | Path | None = None,
    languages: Mapping[str, float] = SHARES,
    kinds: Sequence[str] = KINDS,
    both_ways: bool = False,
    counts: bool = False,
    captions: bool = False,
) -> list[Sample]:
    """Return the questions of one split, or captions, and draw the pictures they need that are not on disk yet.

    Args:
        split: ``"train"``, ``"validation"``, ``"test"``, ``"validation-unseen"``, ``"test-unseen"``; the words of the
            last two are printed in no other split. Arrangements and backgrounds of train, validation and test differ.
        limit: draw at most this many questions at random without replacement; a larger limit contains a smaller one.
        seed: of the scenes, and of that draw.
        images: how many scenes; more contain fewer. By default `IMAGES`.
        folder: where the pictures are kept; without it, ``scenes`` in moai's cache. About 30 kB each.
        languages: share of the questions that are asked in each language, ``"ko"`` or ``"pt"``; all others in English.
        kinds: of questions that are returned; ``"color"``, which none of the others has, on request only.
        both_ways: the ground truth says "a is left of b" and "b is right of a", not the first alone.
        counts: the ground truth also says how many figures share a colour or a shape.
        captions: return a document for each scene instead, of the picture and an English caption such as "Top left red
            star, center blue circle.", all of whose text is learnt.

    Raises:
        RecipeError: unknown split, or a number that is out of its range.
        AssetError: scikit-image's pictures or the fonts are not there, or the folder cannot be written.
    """
    images = _check(split, limit, images, languages, kinds)
    backdrop_folder()  # a missing package is an error now, not after the planning
    names = sources(split)
    plans = [plan_scene(split, index, seed, names) for index in range(images)]
    root = Path(folder).expanduser() if folder is not None else cache_dir() / "scenes"
    place = root / f"v{VERSION}-{_fingerprint()}" / f"{split}-{seed}"
    if captions:
        samples = [_caption(plan, split, seed, index, place) for index, plan in enumerate(plans)]
    else:
        samples = [
            sample
            for index, plan in enumerate(plans)
            for sample in _samples(plan, split, seed, index, place, languages, truth_of(plan, both_ways, counts))
            if sample.kind in kinds
        ]
    if limit is not None:
        samples = _draw(samples, limit, seed)
    _render_missing(place, plans, {int(sample.image_ids[0].rpartition("/")[2]) for sample in samples})
    return samples


def _check(
    split: str, limit: int | None, images: int | None, languages: Mapping[str, float], kinds: Sequence[str]
) -> int:
    if split not in SPLITS:
        raise RecipeError(f"the data set scenes has no split '{split}'{nearest(split, SPLITS)}")
    for name, value in (("limit", limit), ("images", images)):
        if value is not None and value < 1:
            raise RecipeError(f"scenes: {name} is {value}; give at least 1, or none")
    for kind in kinds:
        if kind not in ALL_KINDS:
            raise RecipeError(f"scenes: kinds has '{kind}'{nearest(kind, ALL_KINDS)}")
    for language, share in languages.items():
        if language not in LANGUAGES:
            raise RecipeError(f"scenes: languages has '{language}'{nearest(language, LANGUAGES)}")
        if not 0 <= share <= 1:
            raise RecipeError(f"scenes: languages.{language} is {share}; give a share between 0 and 1")
    if sum(languages.values()) > 1 + 1e-9:
        raise RecipeError(f"scenes: the shares of languages add up to {sum(languages.values()):g}; give 1 at most")
    return IMAGES[split] if images is None else images


def _samples(
    plan: Scene, split: str, seed: int, index: int, place: Path, languages: Mapping[str, float], truth: Perception
) -> list[Sample]:
    rng = random.Random(f"questions {split} {seed} {index}")
    image_id = _image_id(split, seed, index)
    samples = []
    for number, question in enumerate(ask(plan, rng)):
        language = _language(rng.random(), languages)
        wording = word_question(question, language, rng)
        translation = None if language == "en" else question.wordings["en"][0]
        name, file = f"{image_id}/{number}", _file(place, index)
        about = (question.answer, question.kind, truth, language, translation)
        samples.append(Sample.from_question(name, file, image_id, wording, *about))
    return samples


def _caption(plan: Scene, split: str, seed: int, index: int, place: Path) -> Sample:
    image_id = _image_id(split, seed, index)
    turn = Turn("text", (IMAGE, f"{caption(plan)}\n"))
    conversation = Conversation((turn,), (_file(place, index),), "all")
    return Sample(f"{image_id}/caption", conversation, (image_id,), "caption")


def _language(drawn: float, languages: Mapping[str, float]) -> str:
    """Choose by a number in [0, 1), of which each language takes its share, one after another."""
    for language in LANGUAGES:
        share = languages.get(language, 0.0)
        if drawn < share:
            return language
        drawn -= share
    return "en"


def _image_id(split: str, seed: int, index: int) -> str:
    return f"scenes/{split}/{seed}/{index:05d}"


def _file(place: Path, index: int) -> Path:
    return place / f"{index:05d}.jpg"


def _render_missing(place: Path, plans: list[Scene], wanted: Iterable[int]) -> None:
    missing = [index for index in sorted(wanted) if not _file(place, index).is_file()]
    try:
        place.mkdir(parents=True, exist_ok=True)
        with status(f"drawing {len(missing)} scenes into {place}") if len(missing) > 50 else nullcontext():
            for index in missing:
                with replacing(_file(place, index)) as part:
                    part.write_bytes(render(plans[index]))
    except OSError as error:
        raise AssetError(
            f"cannot write {place}: {error.strerror or error}; free some space, or give scenes another folder"
        ) from error


def _draw(samples: list[Sample], limit: int, seed: int) -> list[Sample]:
    def rank(sample: Sample) -> bytes:
        return hashlib.sha256(f"draw {seed}:{sample.id}".encode()).digest()

    drawn = {sample.id for sample in sorted(samples, key=rank)[:limit]}
    return [sample for sample in samples if sample.id in drawn]


def _fingerprint() -> str:
    versions = [f"{name} {_version(name)}" for name in ("pillow", "matplotlib", "scikit-image")]
    return hashlib.sha256(" ".join(versions).encode()).hexdigest()[:8]


def _version(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:  # installed in some other way, e.g. by a distribution that writes no metadata
        return "unknown"
