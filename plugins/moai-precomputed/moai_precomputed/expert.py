"""Hand over what annotation files say of a picture, which is found by its name or by the hash of its bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

from PIL import Image
from pydantic import Field

from moai import Expert, Options
from moai.errors import ExpertError
from moai.plugin_api import identify, image_origin
from moai.types import Perception, merge
from moai_precomputed.files import read_files
from moai_precomputed.index import Index


class Precomputed(Expert):
    """Read findings from files instead of looking at the picture; any program in the world may have written them."""

    name = "precomputed"
    role = "open_world"
    version = "1"
    install = "pip install moai-precomputed"
    licence = "Apache-2.0; the findings are under the licence of what found them"
    by_default = False
    cacheable = False  # what it finds depends on the picture's name, and is read as fast as the cache
    thread_safe = True
    memory = None

    class Options(Options):
        file: str | tuple[str, ...] = ()
        """COCO's JSON (annotations or results), JSON lines, LabelMe's JSON or a folder of these; several are joined."""
        images: str = ""
        """A COCO file with the images and categories that COCO results refer to."""
        missing: Literal["error", "empty"] = "error"
        """What a picture that is not in the file is: a failure that names it, or a picture with nothing in it."""
        match: Literal["path", "name"] = "path"
        """Whether a name in the file is the end of the picture's path, folders included; or file names alone count."""
        role: Literal["panoptic", "open_world", "scene_graph", "ocr"] = "open_world"
        """The role under which experts that require one get these findings; their kind does not depend on it."""
        min_score: float = Field(0.0, ge=0, le=1)
        """Findings with a lower score are left out."""
        crowds: bool = False
        """Keep COCO's regions of many things (iscrowd), as stuff."""

    options: Options

    def __init__(self, **options: Any) -> None:
        """Validate the options; the files are read by ``load``."""
        super().__init__(**options)
        self.role = self.options.role  # type: ignore[misc]
        self._index: Index | None = None

    @property
    def files(self) -> tuple[str, ...]:
        """The annotation files."""
        given = self.options.file
        return tuple(path for path in ((given,) if isinstance(given, str) else given) if path)

    def weights_id(self) -> str:
        """Hash the files' contents, so that a changed file is noticed."""
        paths = [*self.files, *([self.options.images] if self.options.images else [])]
        return json.dumps([identify(path) for path in paths]) if paths else ""

    def load(self, device: str = "cpu") -> None:
        """Read which pictures the files describe."""
        if not self.files:
            raise ExpertError("expert 'precomputed' needs a file of findings; set its option 'file'")
        self._index = Index(read_files(self.files, self.options.images, self.options.crowds), self.options.match)

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Return what the files say of each picture."""
        return [self._perceive(image) for image in images]

    def unload(self) -> None:
        """Forget the files."""
        self._index = None

    def _perceive(self, image: Image.Image) -> Perception:
        if self._index is None:
            raise ExpertError("expert 'precomputed' is not loaded; call load() first")
        origin = image_origin(image)
        found = self._index.find(origin)
        if not found and self.options.missing == "error":
            raise ExpertError(self._index.explain(origin, ", ".join(self.files)))
        return _at_least(
            merge([entry.perception(image.width, image.height) for entry in found]), self.options.min_score
        )


def _at_least(perception: Perception, score: float) -> Perception:
    kinds = ("segments", "detections", "relations", "texts")
    return replace(
        perception, **{kind: tuple(one for one in getattr(perception, kind) if one.score >= score) for kind in kinds}
    )
