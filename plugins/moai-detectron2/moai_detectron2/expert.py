"""Perceive things by Mask R-CNN and stuff by a semantic branch: detectron2's Panoptic FPN.

Knows: how detectron2 is configured and called. Weights are read in `weights`, results in `segments`.
"""

from __future__ import annotations

import importlib.util
import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from PIL import Image
from pydantic import Field

import moai
from moai.errors import AssetError, ExpertError, nearest
from moai.plugin_api import identify
from moai.types import Perception
from moai_detectron2.segments import Names, segments, with_scores
from moai_detectron2.weights import FOLDER, PUBLISHED, ZOO, fill, locate

ELONGATED = 16  # sides at most this to 1: detectron2 scales the long side to a limit, and leaves the short one nothing
INSTALL = "pip install --no-build-isolation git+https://github.com/facebookresearch/detectron2"


class PanopticFPN(moai.Expert):
    """Segment the things and stuff of COCO by Panoptic FPN."""

    name = "panoptic-fpn"
    role = "panoptic"
    version = "1"
    modules = ("detectron2", "torch")
    install = INSTALL
    licence = "Apache-2.0 (detectron2); its published weights CC BY-SA 3.0"
    weights = "detectron2's model zoo, or the option weights"
    memory = 900_000_000  # measured with ResNet-50 at 1067 x 800
    by_default: ClassVar[bool] = False  # runs when it is named: detectron2 is installed for other reasons too

    class Options(moai.Options):
        config: str = "panoptic_fpn_R_50_3x"
        """Name in detectron2's model zoo (panoptic_fpn_R_50_1x, _R_50_3x, _R_101_3x), or the path of a YAML file."""
        weights: str = PUBLISHED
        """"published": the zoo's for `config`, downloaded once by detectron2; or the path of a .pkl, .pth or
        .safetensors file."""
        min_score: float = Field(0.5, ge=0, le=1)
        """Things with a lower score are left out."""
        overlap: float = Field(0.5, ge=0, le=1)
        """Things of which a larger share is covered by surer ones are left out."""
        stuff_pixels: int = Field(4096, ge=0)
        """Stuff with fewer pixels in the map is left out; 4096 is detectron2's, for pictures as large as COCO's."""
        mask_side: int = Field(640, ge=16)
        """The map's longer side is at most this; pictures in COCO measure 640."""
        short_side: int = Field(800, ge=32)
        """Pictures are scaled to this for the network."""
        long_side: int = Field(1333, ge=32)
        """Unless the other side would then be longer than this."""

    _model: Any = None
    _scale: Any = None
    _names: Names | None = None
    _bgr: bool = True

    def weights_id(self) -> str:
        """Identify the weights, with the configuration's content where that is a file."""
        options = self.options
        known = ZOO.get(options.config, "") if options.weights == PUBLISHED else identify(options.weights)
        return f"{known} {identify(options.config)}" if Path(options.config).expanduser().is_file() else known

    def load(self, device: str = "cpu") -> None:
        """Build the model.

        Raises:
            ExpertError: detectron2 is not installed, or the configuration is not a Panoptic FPN's.
            AssetError: configuration or weights cannot be found or read.
        """
        try:
            import detectron2  # noqa: F401
        except ImportError as error:
            raise ExpertError(f"detectron2 is not installed, and not on the package index; run: {INSTALL}") from error
        with _quiet():
            self._build(device)

    def unload(self) -> None:
        """Drop the model, and free a GPU's memory."""
        on_gpu = self._model is not None and self._model.device.type == "cuda"
        self._model = self._scale = self._names = None
        if on_gpu:
            import torch

            torch.cuda.empty_cache()

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Perceive each picture by itself, so that none is padded to another's size."""
        return [self.to_perception(self._look(image), self._names) for image in images]

    def to_perception(self, raw: Mapping[str, Any], names: Names) -> Perception:
        """Convert ``{"panoptic": (H, W) ids, "rows": segments_info with a score for stuff too}``; a pure function."""
        return Perception(segments=segments(np.asarray(raw["panoptic"]), raw["rows"], names))

    def _build(self, device: str) -> None:
        from detectron2.data import MetadataCatalog
        from detectron2.data.transforms import ResizeShortestEdge
        from detectron2.modeling import build_model

        options = self.options
        config = self._config()
        config.MODEL.DEVICE = device
        if config.MODEL.META_ARCHITECTURE != "PanopticFPN":
            raise ExpertError(f"{options.config} configures a {config.MODEL.META_ARCHITECTURE}; give a PanopticFPN's")
        metadata = MetadataCatalog.get(config.DATASETS.TRAIN[0])
        try:
            self._names = Names(tuple(metadata.thing_classes), tuple(metadata.stuff_classes))
        except AttributeError as error:
            raise ExpertError(
                f"the data set '{config.DATASETS.TRAIN[0]}' of {options.config} has no class names in detectron2's "
                "metadata; register it, or name coco_2017_train_panoptic_separated there"
            ) from error
        path = locate(options.weights, options.config)
        model = build_model(config).eval().requires_grad_(False)
        fill(model, path)
        self._model, self._bgr = model, config.INPUT.FORMAT == "BGR"
        self._scale = ResizeShortestEdge([options.short_side, options.short_side], options.long_side)

    def _config(self) -> Any:
        from detectron2.config import get_cfg

        options, config = self.options, get_cfg()
        try:
            config.merge_from_file(str(config_path(options.config)))
        except (KeyError, ValueError, OSError, AssertionError) as error:
            reason = str(error).strip().split("\n")[0]
            raise AssetError(f"{options.config} cannot be read as a configuration of detectron2: {reason}") from error
        combine = config.MODEL.PANOPTIC_FPN.COMBINE
        combine.INSTANCES_CONFIDENCE_THRESH = options.min_score
        combine.OVERLAP_THRESH = options.overlap
        combine.STUFF_AREA_LIMIT = options.stuff_pixels
        test = config.MODEL.ROI_HEADS
        test.SCORE_THRESH_TEST = min(test.SCORE_THRESH_TEST, options.min_score)
        return config

    def _look(self, image: Image.Image) -> dict[str, Any]:
        import torch

        pixels = np.array(stretched(image.convert("RGB")))
        if self._bgr:  # what the zoo's models were trained on
            pixels = np.ascontiguousarray(pixels[:, :, ::-1])
        scaled = self._scale.get_transform(pixels).apply_image(pixels)
        tensor = torch.from_numpy(np.ascontiguousarray(scaled.astype("float32").transpose(2, 0, 1)))
        width, height = limited(image.size, self.options.mask_side)
        with torch.inference_mode(), _quiet():
            (output,) = self._model([{"image": tensor, "height": height, "width": width}])
        panoptic, rows = output["panoptic_seg"]
        logits = output["sem_seg"]
        if not bool(torch.isfinite(logits).all()):
            raise ExpertError("expert 'panoptic-fpn' computed NaN or infinity; its weights are damaged")
        panoptic = panoptic.cpu().numpy()
        return {"panoptic": panoptic, "rows": with_scores(panoptic, rows, logits.float().cpu().numpy())}


def config_path(config: str) -> Path:
    """Find the YAML file of a zoo name or path.

    Raises:
        AssetError: it is neither.
    """
    path = Path(config).expanduser()
    if path.is_file():
        return path
    if config in ZOO:
        # Found without importing detectron2.model_zoo, which needs pkg_resources: current setuptools has none.
        home = Path(importlib.util.find_spec("detectron2").submodule_search_locations[0])
        inside = Path("configs", FOLDER, f"{config}.yaml")
        for folder in (home / "model_zoo", home.parent):  # installed, or a clone on the path
            if (folder / inside).is_file():
                return folder / inside
        raise AssetError(f"this detectron2 came without its configurations; give the path of {inside} in its clone")
    raise AssetError(f"'{config}' is neither a file nor in detectron2's model zoo{nearest(config, ZOO)}")


def stretched(image: Image.Image) -> Image.Image:
    """Enlarge a shorter side of less than a sixteenth of the longer one; normalised boxes stay true."""
    least = -(-max(image.size) // ELONGATED)
    size = (max(image.width, least), max(image.height, least))
    return image if size == image.size else image.resize(size, Image.Resampling.BILINEAR)


def limited(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """Limit (width, height) to a longer side of at most ``longest``."""
    factor = min(1.0, longest / max(size))
    width, height = (max(1, round(side * factor)) for side in size)
    return width, height


@contextmanager
def _quiet() -> Iterator[None]:
    """Suppress detectron2's notices and torch's advice to its authors."""
    logs = [logging.getLogger(name) for name in ("detectron2", "fvcore", "torch.fx._symbolic_trace")]
    levels = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for log, level in zip(logs, levels, strict=True):
            log.setLevel(level)
