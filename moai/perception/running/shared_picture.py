"""Give each expert a picture of its own without copying pixels: they are copied when the expert writes to them.

Knows: how Pillow writes. Whatever draws or pastes asks the attribute ``readonly`` first and then copies. What does not,
the pixels that ``load`` returns and ``frombytes``, is protected here.
"""

from __future__ import annotations

from typing import Any

from PIL import Image


def share(image: Image.Image) -> Image.Image:
    """Return a picture with the pixels of ``image``; whatever is written to it leaves ``image`` as it is.

    Args:
        image: decoded. Writing to it later shows in the shared picture, until that has pixels of its own.
    """
    return _Shared(image)


class _Shared(Image.Image):
    """Share the pixels of another picture until the first write; from then on this is a plain picture."""

    def __init__(self, source: Image.Image) -> None:
        super().__init__()
        source.load()
        self.im, self._mode, self._size = source.im, source.mode, source.size
        self.info = dict(source.info)
        self.readonly = 1

    def load(self) -> Any:
        """Return the pixels: what is assigned to them is written to a copy."""
        return _Pixels(self) if self.readonly else super().load()

    def frombytes(self, *args: Any, **options: Any) -> None:
        """Replace all pixels, of a copy."""
        self._own()
        Image.Image.frombytes(self, *args, **options)  # the class has changed: super() would not find it

    def _copy(self) -> None:
        super()._copy()
        self.__class__ = Image.Image  # type: ignore[assignment]

    def _own(self) -> None:
        if self.readonly:
            self._copy()

    def __setstate__(self, state: Any) -> None:
        self.readonly = 0  # what is copied or unpickled has pixels of its own
        super().__setstate__(state)
        self.__class__ = Image.Image  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        return self._new(self.im) == other  # Pillow calls pictures of two classes unequal

    __hash__ = None  # type: ignore[assignment]


class _Pixels:
    """Read and write single pixels, as Pillow's own object does."""

    def __init__(self, image: Image.Image) -> None:
        self._image, self._access = image, image.im.pixel_access(1)

    def __getitem__(self, place: tuple[int, int]) -> Any:
        return self._access[place]

    def __setitem__(self, place: tuple[int, int], colour: Any) -> None:
        if isinstance(self._image, _Shared):
            self._image._own()
        self._access = self._image.im.pixel_access(0)
        self._access[place] = colour
