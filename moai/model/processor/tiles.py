"""Images as several pictures: crops of a grid, and the whole image at the size of one crop.

Knows: PIL images and numbers. MM1 (arXiv 2403.09611, section 4) follows SPHINX (arXiv 2311.07575) in this: an image of
1344 x 1344 pixels is four crops of 672 x 672 and the whole, each encoded by itself. Which order the paper puts them in
is not known; here the crops come row by row, and the whole comes last.
"""

from __future__ import annotations

from typing import NamedTuple

from PIL.Image import Image, Resampling


class Tiles(NamedTuple):
    """Into which pictures an image is cut.

    Attributes:
        grid: rows and columns of crops.
        thumbnail: whether the whole image is a picture, too, after the crops.
        last: how many of a conversation's last images are cut; those before them are one picture each. None cuts all.
    """

    grid: tuple[int, int] = (2, 2)
    thumbnail: bool = True
    last: int | None = None

    @property
    def pictures(self) -> int:
        """How many pictures an image is that is cut."""
        return self.grid[0] * self.grid[1] + self.thumbnail

    def counts(self, images: int) -> list[int]:
        """Count the pictures of each of a conversation's images, in their order."""
        cut = images if self.last is None else min(images, self.last)
        return [1] * (images - cut) + [self.pictures] * cut

    def cut(self, image: Image, size: tuple[int, int], resample: Resampling) -> list[Image]:
        """Cut an image into its pictures.

        Args:
            image: RGB, of any size.
            size: height and width of a crop.
            resample: how the image is resized to what the grid covers.
        """
        (height, width), (rows, columns) = size, self.grid
        whole = image.resize((columns * width, rows * height), resample)
        boxes = [
            (column * width, row * height, (column + 1) * width, (row + 1) * height)
            for row in range(rows)
            for column in range(columns)
        ]
        return [*map(whole.crop, boxes), *([image] if self.thumbnail else [])]
