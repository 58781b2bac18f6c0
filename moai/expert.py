"""Define the interface of every CV expert.

Knows: perceptions and images. An expert is a class with a *role*. Registering it must import nothing heavy, so an
engine is imported in :meth:`Expert.load` and nowhere else.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import BaseModel, ConfigDict, ValidationError

from moai.errors import ExpertError, nearest
from moai.source_digest import source_digest
from moai.types import Perception

if TYPE_CHECKING:
    from PIL.Image import Image


class Options(BaseModel):
    """Hold an expert's typed, frozen settings; unknown names are refused. Subclass it in the expert as ``Options``."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Expert(ABC):
    """Run one specialist vision model.

    Class attributes describe it, ``load`` builds the engine, and ``perceive`` runs it on a batch of images.
    ``perceive`` should be a library call followed by a pure ``to_perception(raw)``, so that the second can be tested
    on recorded output without weights.
    """

    name: ClassVar[str]  # unique, lower case: "shapes"
    role: ClassVar[str]  # "panoptic", "open_world", "scene_graph", "ocr", or a role of the plugin's own
    version: ClassVar[str]  # part of the cache key: change it when the output may change
    requires: ClassVar[tuple[str, ...]] = ()  # roles whose perceptions are the context, when any expert has them
    modules: ClassVar[tuple[str, ...]] = ()  # import names that load() needs; a missing one means "not installed"
    install: ClassVar[str] = ""  # the command that installs what is missing
    licence: ClassVar[str] = ""  # of code and weights
    weights: ClassVar[str] = "none"  # where the weights come from
    cacheable: ClassVar[bool] = True  # False where a perception depends on more than pixels, such as the file's name
    by_default: ClassVar[bool] = True  # whether it runs where no expert is named; not one that downloads gigabytes
    thread_safe: ClassVar[bool] = False  # whether perceive may run in several threads at once; else calls wait
    memory: int | None = None  # bytes when loaded and busy, on its device; a property where the options decide it
    Options: ClassVar[type[Options]] = Options
    options: Any  # an Options of the class; with `options: Options` in a subclass a type checker has its fields

    source: ClassVar[str] = ""  # digest of the class's source, made here where it is not installed as a copy

    def __init_subclass__(cls, **keywords: Any) -> None:
        """Digest the source that the class is made of."""
        super().__init_subclass__(**keywords)
        cls.source = source_digest(cls)  # now: a file that is changed later is not what was imported

    def __init__(self, **options: Any) -> None:
        """Validate ``options`` against ``Options``; nothing is loaded yet.

        Raises:
            ExpertError: an unknown option or a wrong value, with the nearest known name.
        """
        kind: Any = type(self).Options  # pydantic gives `model_fields` another type in each version
        known = kind.model_fields
        for name in options:
            if name not in known:
                raise ExpertError(f"expert '{self.name}' has no option '{name}'{nearest(name, known)}")
        try:
            self.options = kind(**options)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"])
            raise ExpertError(f"expert '{self.name}', option '{where}': {first['msg']}") from None

    @classmethod
    def missing(cls) -> list[str]:
        """List the import names in ``modules`` that are not installed, without importing them."""
        return [name for name in cls.modules if not _importable(name)]

    def weights_id(self) -> str:
        """Identify the weights for the cache key: a hash, or ``""`` where ``version`` and options are enough.

        Called once, before ``load``; it must be cheap and need no engine. ``moai.plugin_api.identify``
        does it for a path or a pinned wheel. After an error perceptions are not cached, but the expert runs.
        """
        return ""

    def load(self, device: str = "cpu") -> None:
        """Import the engine and build it on ``device``. Called once, before the first ``perceive``."""

    @abstractmethod
    def perceive(self, images: Sequence[Image], context: Sequence[Perception]) -> list[Perception]:
        """Perceive a batch of images.

        Args:
            images: RGB pictures of any size, EXIF rotation applied, the expert's own to write to. Copy one that is
                kept after the call.
            context: per image, a copy of the perception by the experts of the roles in ``requires`` (empty when there
                are none).

        Returns:
            One perception per image, in order; an image with nothing in it gives an empty ``Perception()``. The runner
            adds ``sources``.
        """

    def unload(self) -> None:
        """Drop the engine and its memory; ``load`` may be called again."""


def _importable(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:  # "a.b" where "a" itself is missing
        return False
