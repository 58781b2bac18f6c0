"""The contract kit: ``check_expert`` says in one sentence what a plugin's expert does wrong.

Knows: what the runner, the cache and the verbalizer rely on. It calls the expert on pictures that break careless
code (one pixel, nothing in it, grey, large) and compares what it returns with itself. It does not judge whether the
expert sees well; that is for the plugin's own tests.
"""

from __future__ import annotations

import inspect
import json
import math
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from moai.errors import ExpertError
from moai.expert import Expert
from moai.perception.types import (
    Detection,
    Mask,
    Perception,
    Relation,
    Segment,
    Source,
    TextLine,
    check_perception,
    merge,
)

TOLERANCE = 1e-3  # of scores and coordinates between two runs that should be equal; batched float kernels differ a bit
IMPORT_SECONDS = 120  # for a fresh interpreter on a slow disk
_IMPORT_PROBE = """
import importlib, sys
import moai.expert
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(" ".join(name for name in sys.argv[2:] if name in sys.modules and name not in before))
"""


def check_expert(
    expert: Expert | type[Expert],
    images: Sequence[Image.Image] | None = None,
    contexts: Sequence[Perception] | None = None,
) -> None:
    """Run an expert through everything that ``moai`` relies on; pass silently or say what broke.

    Args:
        expert: a class, which is built with its default options, or an instance.
        images: RGB pictures to look at instead of :func:`sample_images`.
        contexts: one perception per image for an expert with ``requires``, instead of :func:`sample_context`.

    Raises:
        AssertionError: naming the first thing that breaks the contract.
    """
    kind = expert if isinstance(expert, type) else type(expert)
    check_declaration(kind)
    check_registration_is_light(kind)
    check_options(kind)
    instance = expert() if isinstance(expert, type) else expert
    images = list(images if images is not None else sample_images())
    if contexts is None:
        contexts = [sample_context(kind.requires)] * len(images)
    _require(len(contexts) == len(images), f"{len(contexts)} contexts for {len(images)} images")
    instance.load("cpu")
    try:
        first = check_perceive(instance, images, list(contexts))
    finally:
        instance.unload()
    instance.load("cpu")
    try:
        again = _call(instance, images[:1], list(contexts[:1]))
        _same(first[:1], again, "after unload() and load() perceive sees something else")
    finally:
        instance.unload()


def check_declaration(kind: type[Expert]) -> None:
    """The class attributes say what the expert is, and ``perceive`` is there."""
    _require(isinstance(kind, type) and issubclass(kind, Expert), f"{kind!r} is not a subclass of moai.Expert")
    _require(not inspect.isabstract(kind), f"{kind.__name__} does not implement perceive(images, context)")
    for field in ("name", "role", "version"):
        value = getattr(kind, field, None)
        _require(isinstance(value, str) and value.strip() != "", f"{kind.__name__}.{field} must be a non-empty string")
    _require(re.fullmatch(r"[a-z][a-z0-9_-]*", kind.name), f"name {kind.name!r} must be lower case: a-z, 0-9, - and _")
    _require(re.fullmatch(r"[a-z][a-z0-9_]*", kind.role), f"role {kind.role!r} must be lower case: a-z, 0-9 and _")
    for field in ("requires", "modules"):
        value = getattr(kind, field)
        _require(
            isinstance(value, tuple) and all(isinstance(item, str) for item in value),
            f"{kind.__name__}.{field} must be a tuple of strings, not {value!r}",
        )
    _require(kind.role not in kind.requires, f"{kind.__name__} requires its own role {kind.role!r}")
    missing = kind.missing()
    _require(not missing, f"cannot check '{kind.name}': {', '.join(missing)} not installed; {kind.install}")


def check_registration_is_light(kind: type[Expert]) -> None:
    """Importing the plugin's module, in a fresh interpreter, imports none of the names in ``modules``."""
    path = os.pathsep.join(item or os.getcwd() for item in sys.path)
    run = subprocess.run(
        [sys.executable, "-c", _IMPORT_PROBE, kind.__module__, *kind.modules],
        env={**os.environ, "PYTHONPATH": path},
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
    )
    error = run.stderr.strip().splitlines()
    _require(run.returncode == 0, f"module {kind.__module__} does not import: {error[-1] if error else 'no message'}")
    loaded = run.stdout.strip()
    _require(not loaded, f"importing {kind.__module__} imports {loaded}; import it inside load() or a function")


def check_options(kind: type[Expert]) -> None:
    """Options have defaults, a JSON schema, and refuse unknown names."""
    required = [name for name, field in kind.Options.model_fields.items() if field.is_required()]
    _require(not required, f"options without a default: {', '.join(required)}; an expert must start without options")
    try:
        json.dumps(kind.Options.model_json_schema())
    except Exception as error:  # pydantic has several kinds; all of them mean a field's type is not plain data
        raise AssertionError(f"the options of '{kind.name}' have no JSON schema: {error}") from error
    _require(kind.Options.model_config.get("frozen"), "Options must stay frozen: subclass moai.Options")
    try:
        kind(no_such_option_=1)
    except ExpertError:
        return
    raise AssertionError(f"expert '{kind.name}' accepts unknown options; subclass moai.Options and keep its config")


def check_perceive(expert: Expert, images: list[Image.Image], contexts: list[Perception]) -> list[Perception]:
    """A loaded expert keeps the contract on ``images``; returns what it saw."""
    before = [image.tobytes() for image in images]
    together = _call(expert, images, contexts)
    _require([image.tobytes() for image in images] == before, "perceive changes the images it is given")
    _same(together, _call(expert, images, contexts), "perceive is not deterministic: the same batch twice")
    alone = [_call(expert, [image], [context])[0] for image, context in zip(images, contexts, strict=True)]
    _same(together, alone, "an image in a batch is seen differently than alone")
    _require(_call(expert, [], []) == [], "perceive must return [] for no images")
    _call(expert, [_scene(1280, 960)], [contexts[0] if contexts else Perception()])
    if expert.requires and images:
        _call(expert, images[:1], [Perception()])  # nobody offers the role, or found nothing
    for seen in together:
        text = json.dumps(seen.to_dict())
        _require(Perception.from_dict(json.loads(text)) == seen, "a perception does not survive JSON: use plain types")
    return together


def sample_images() -> list[Image.Image]:
    """RGB pictures that break careless code: a scene, nothing in it, one pixel, a sliver, grey, noise-free bands."""
    grey = _scene(160, 120).convert("L").convert("RGB")
    uniform = Image.new("RGB", (64, 64), (200, 210, 220))
    return [_scene(160, 120), uniform, Image.new("RGB", (1, 1)), Image.new("RGB", (200, 3), "white"), grey]


def sample_context(requires: Sequence[str]) -> Perception:
    """What experts of the roles in ``requires`` might have seen in ``sample_images()[0]``."""
    mask = Mask.encode(_disc())
    parts = {
        "panoptic": Perception(
            segments=(
                Segment("circle", 0.95, (0.0625, 0.1667, 0.3125, 0.5), mask, True, {"color": "red"}),
                Segment("rectangle", 0.9, (0.5, 0.25, 0.9375, 0.75), None, True, {"color": "blue"}),
            )
        ),
        "open_world": Perception(detections=(Detection("ball", 0.7, (0.0625, 0.1667, 0.3125, 0.5)),)),
        "scene_graph": Perception(relations=(Relation("red circle", "left of", "blue rectangle", 0.8),)),
        "ocr": Perception(texts=(TextLine("EXIT 42", 0.9, ((0.5, 0.3), (0.9, 0.3), (0.9, 0.6), (0.5, 0.6))),)),
    }
    seen = [parts.get(role, Perception(notes={role: ("a note.",)})) for role in requires]
    return merge([*seen, Perception(sources=tuple(Source("sample", role, "1") for role in requires))])


def _call(expert: Expert, images: list[Image.Image], contexts: list[Perception]) -> list[Perception]:
    sizes = ", ".join(f"{image.width}x{image.height}" for image in images)
    try:
        seen = expert.perceive(images, contexts)
    except Exception as error:
        raise AssertionError(f"perceive raises on images of {sizes}: {type(error).__name__}: {error}") from error
    _require(isinstance(seen, list), f"perceive must return a list, not {type(seen).__name__}")
    _require(len(seen) == len(images), f"perceive returned {len(seen)} perceptions for {len(images)} images")
    for image, perception in zip(images, seen, strict=True):
        try:
            check_perception(perception)
        except ExpertError as error:
            raise AssertionError(f"on an image of {image.width}x{image.height}: {error}") from error
    return seen


def _same(left: list[Perception], right: list[Perception], what: str) -> None:
    for index, (a, b) in enumerate(zip(left, right, strict=True)):
        _require(_near(a.to_dict(), b.to_dict()), f"{what} (image {index}): {_brief(a)} and then {_brief(b)}")


def _near(a: Any, b: Any) -> bool:
    if isinstance(a, float) and isinstance(b, (int, float)):
        return math.isclose(a, b, abs_tol=TOLERANCE)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(_near(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(_near(x, y) for x, y in zip(a, b, strict=True))
    return a == b


def _brief(perception: Perception) -> str:
    text = json.dumps({key: value for key, value in perception.to_dict().items() if value}, default=str)
    return text if len(text) < 300 else text[:300] + "..."


def _require(condition: object, message: str) -> None:
    if not condition:
        raise AssertionError(message)


def _disc() -> np.ndarray:
    image = Image.new("L", (160, 120))
    ImageDraw.Draw(image).ellipse((10, 20, 50, 60), fill=1)
    return np.asarray(image)


def _scene(width: int, height: int) -> Image.Image:
    image = Image.new("RGB", (160, 120), (240, 240, 235))
    draw = ImageDraw.Draw(image)
    draw.ellipse((10, 20, 50, 60), fill="red")
    draw.rectangle((80, 30, 150, 90), fill="blue")
    return image.resize((width, height), Image.Resampling.NEAREST)
