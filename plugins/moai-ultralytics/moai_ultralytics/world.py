"""Detect by YOLO-World: any names, by CLIP's text embeddings."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from moai.errors import ExpertError
from moai_ultralytics.detector import Detector, DetectorOptions, require_kind
from moai_ultralytics.text import text_features


class YOLOWorld(Detector):
    """Detect whatever the vocabulary names (arXiv 2401.17270); `score` is the model's own confidence."""

    name = "yolo-world"

    class Options(DetectorOptions):
        text_model: str = "openai/clip-vit-base-patch32"
        """Folder or hub id of the CLIP model that embeds the vocabulary; read only when there is one."""

    def references(self) -> tuple[str, ...]:
        """List the weights, and the text model when the vocabulary needs one."""
        return (self.options.weights, self.options.text_model if self.options.vocabulary else "")

    def open(self, ultralytics: ModuleType, path: Path) -> Any:
        """Read the checkpoint."""
        return ultralytics.YOLOWorld(str(path))

    def set_vocabulary(self, model: Any, path: Path) -> None:
        """Put the embeddings where YOLO-World's own ``set_classes`` would put them."""
        import torch
        from ultralytics.nn.tasks import WorldModel

        require_kind(model, WorldModel, path, "the expert 'yoloe'")
        names = self.options.vocabulary
        if not names:
            return
        features = torch.from_numpy(text_features(names, self.options.text_model))[None]  # (1, N, D)
        width = model.model.txt_feats.shape[-1]
        if features.shape[-1] != width:
            raise ExpertError(
                f"{self.options.text_model} embeds text in {features.shape[-1]} numbers, {path.name} was trained with "
                f"{width}; set the option text_model to the CLIP model it was trained with"
            )
        model.model.txt_feats = features
        model.model.model[-1].nc = len(names)
        model.model.names = dict(enumerate(names))
        model.predictor = None  # the next prediction takes the new names
