"""Detect by YOLOE: prompt embeddings that were made before, or the names of a prompt-free checkpoint."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType
from typing import Any

from moai.errors import AssetError, ExpertError, nearest
from moai.plugin_api import resolve
from moai_ultralytics.detector import Detector, DetectorOptions, require_kind


class YOLOE(Detector):
    """Detect the names in the weights or in a prompts file (arXiv 2503.07465); `score` is the model's confidence."""

    name = "yoloe"

    class Options(DetectorOptions):
        prompts: str = ""
        """The .npz file that Ultralytics' `save_prompt_embeddings` wrote for these weights; empty: those inside."""

    def references(self) -> tuple[str, ...]:
        """List the weights and the prompts."""
        return (self.options.weights, self.options.prompts)

    def open(self, ultralytics: ModuleType, path: Path) -> Any:
        """Read the checkpoint."""
        return ultralytics.YOLOE(str(path))

    def set_vocabulary(self, model: Any, path: Path) -> None:
        """Take the prompts, and of them the vocabulary; YOLOE's text model has no counterpart in transformers."""
        from ultralytics.nn.tasks import YOLOEModel

        require_kind(model, YOLOEModel, path, "the expert 'yolo-world'")
        if hasattr(model.model.model[-1], "lrpc"):
            if self.options.vocabulary or self.options.prompts:
                raise ExpertError(f"{path.name} is prompt-free; leave out the options vocabulary and prompts")
            return
        if self.options.prompts:
            self._read_prompts(model)
        embeddings = getattr(model.model, "pe", None)
        if embeddings is None:
            raise AssetError(f"{path.name} holds no prompt embeddings; {_recipe()}")
        if self.options.vocabulary:
            known = {name: index for index, name in model.model.names.items()}
            for name in self.options.vocabulary:
                if name not in known:
                    raise ExpertError(f"there is no prompt embedding for '{name}'{nearest(name, known)}; {_recipe()}")
            chosen = [known[name] for name in self.options.vocabulary]
            model.set_classes(list(self.options.vocabulary), embeddings[:, chosen])

    def _read_prompts(self, model: Any) -> None:
        path = resolve(self.options.prompts)
        try:
            model.load_prompt_embeddings(path)
        except (OSError, ValueError, EOFError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise AssetError(f"{path} holds no prompts for these weights ({reason}); {_recipe()}") from error


def _recipe() -> str:
    return (
        "make them where Ultralytics may download its text model: model = YOLOE('weights.pt'), "
        "model.set_classes(names), model.save_prompt_embeddings('prompts.npz'), and set the option prompts to that file"
    )
