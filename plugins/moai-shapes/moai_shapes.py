"""Find solid coloured shapes by OpenCV contours: the plugin to copy when you write your own.

Knows: pixels and outlines. It finds patches of even colour that stand out from what surrounds them, compares
the outline of each with a circle, a rectangle and a triangle, and names the colour. With the option ``background:
photo`` it finds flat, vivid patches drawn over a photograph instead, and knows squares and stars as well. It knows
nothing of what photographs themselves show: there it gives few segments with low scores, or none.

How it is built, which is how every plugin is built: `Shapes.perceive` calls the engine once per picture and returns
typed data; nothing heavy is imported before `load`; `register_experts` registers the class.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from PIL import Image
from pydantic import Field

import moai
from moai import Expert, Options
from moai.types import Mask, Perception, Segment

COLORS = {  # name -> anchors in sRGB; several where one name spans a wide range
    "black": [(0, 0, 0), (35, 35, 35)],
    "gray": [(128, 128, 128), (85, 85, 85), (180, 180, 180)],
    "white": [(255, 255, 255), (235, 235, 235)],
    "red": [(255, 0, 0), (210, 20, 30), (230, 60, 50)],
    "orange": [(255, 140, 0), (255, 110, 30)],
    "yellow": [(255, 255, 0), (255, 215, 0), (240, 230, 110)],
    "green": [(0, 255, 0), (0, 128, 0), (60, 180, 75), (150, 220, 80)],
    "teal": [(0, 128, 128), (0, 190, 190), (64, 224, 208)],
    "blue": [(0, 0, 255), (30, 60, 180), (30, 144, 255), (0, 0, 128), (135, 190, 235)],
    "purple": [(128, 0, 128), (110, 50, 170), (160, 60, 220)],
    "pink": [(255, 105, 180), (255, 182, 193), (230, 160, 175), (255, 0, 255)],
    "brown": [(165, 42, 42), (139, 69, 19), (110, 60, 30)],
}
CONTRAST = 24.0  # RGB distance below which a patch is part of what surrounds it
OFF_BLEND = 45.0  # RGB distance from "some mix of the patch and its surroundings" at which a pixel is something else
OUTLINE = 96  # pixels; smaller patches are enlarged to this before their outline is measured
FLAT = 12.0  # photo: change from pixel to pixel up to which a colour is constant; JPEG artefacts stay below
VIVID = 70.0  # photo: least distance between the largest and the smallest of R, G and B
SPREAD = 20.0  # photo: RGB distance from the patch's colour within which nine tenths of it must lie
EDGE = 45.0  # photo: RGB distance from the patch's colour at which the patch ends
LARGEST = 0.7  # photo: a flat region longer than this share of the picture is a part of the photograph
SQUARE = 1.15  # photo: ratio of the sides up to which a rectangle is a square
PENTAGON = 0.73  # share of a circle that the hull of a star fills: a regular pentagon (0.757), less for blurred tips

Window = tuple[slice, slice]  # rows, columns


class Patch(NamedTuple):
    """Hold one patch of even colour: its mask in the picture, its outline's fit and its colour."""

    mask: np.ndarray  # (H, W) bool
    fits: dict[str, float]  # label -> share of the smallest such shape around the outline that the outline fills
    rgb: np.ndarray  # (3,) in 0..255


class Shapes(Expert):
    """Find circles, rectangles and triangles of one colour; `score` is the share of the ideal shape that is filled."""

    name = "shapes"
    role = "panoptic"
    version = "1"
    modules = ("cv2",)
    install = "pip install moai-shapes"
    licence = "Apache-2.0"

    class Options(Options):
        background: Literal["plain", "photo"] = "plain"
        """What shapes lie on: "plain" for drawings; "photo" for flat, vivid shapes over photographs, by rows."""
        min_size: float = Field(0.08, gt=0, le=1)
        """Longer side of the smallest shape to report, as a share of the picture's shorter side."""
        sure: float = Field(0.86, ge=0, le=1)
        """Fit from which a shape gets its own name; below, it is called "shape"."""
        min_score: float = Field(0.5, ge=0, le=1)
        """Fit below which a patch is not reported at all."""
        max_shapes: int = Field(32, ge=1)
        """At most this many shapes per picture, the largest first."""
        max_side: int = Field(640, ge=16)
        """Larger pictures are shrunk to this first."""

    def perceive(self, images: Sequence[Image.Image], context: Sequence[Perception]) -> list[Perception]:
        """Perceive each picture by itself; `context` is not used, since `requires` is empty."""
        find = find_flat if self.options.background == "photo" else find_patches
        return [self.to_perception(find(self._pixels(image), self.options)) for image in images]

    def to_perception(self, patches: Sequence[Patch]) -> Perception:
        """Turn the engine's findings into typed data: pure, so that it is tested without the engine."""
        segments = []
        for mask, fits, rgb in patches:
            label, score = max(fits.items(), key=lambda item: item[1])
            if score >= self.options.min_score:
                label = label if score >= self.options.sure else "shape"
                color = {"color": name_color(rgb)}
                segments.append(Segment(label, round(score, 4), box_of(mask), Mask.encode(mask), True, color))
        return Perception(segments=tuple(segments))

    def _pixels(self, image: Image.Image) -> np.ndarray:
        if max(image.size) > self.options.max_side:
            image = image.copy()
            image.thumbnail((self.options.max_side, self.options.max_side))
        return np.asarray(image.convert("RGB"))


def find_patches(rgb: np.ndarray, options: Shapes.Options) -> list[Patch]:
    """Find even patches that stand out. ``rgb``: ``(H, W, 3)`` uint8. Returns the largest first, each once."""
    least = max(options.min_size * min(rgb.shape[:2]), 4.0)
    pixels = rgb.astype(np.float32)
    labels, boxes, background = _even_regions(pixels, least)
    taken = np.zeros(rgb.shape[:2], dtype=bool)
    patches: list[Patch] = []
    for label, window in boxes:
        seed = labels[window] == label
        if len(patches) == options.max_shapes:
            break
        if taken[window][seed].mean() > 0.5:  # a second fragment of a patch that is found already
            continue
        patch = _grow(pixels[window], seed, background)
        if patch is None or max(np.ptp(np.nonzero(patch.mask), axis=1)) + 1 < least:
            continue
        mask = np.zeros_like(taken)
        mask[window] = patch.mask
        taken |= mask
        patches.append(patch._replace(mask=mask))
    return patches


def find_flat(rgb: np.ndarray, options: Shapes.Options) -> list[Patch]:
    """Find flat, vivid patches with the outline of a shape, whatever is around them: row by row, left to right.

    Anything may be on a photograph, so a patch that fits no shape by ``options.sure`` is left out, and so is one that
    the picture's rim cuts off.
    """
    import cv2

    least = max(options.min_size * min(rgb.shape[:2]), 4.0)
    pixels = rgb.astype(np.float32)
    step = np.maximum(_change(pixels, axis=0), _change(pixels, axis=1))
    seeds = ((step <= FLAT) & (np.ptp(pixels, axis=-1) >= VIVID)).astype(np.uint8)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(seeds, connectivity=4)
    longest = stats[:, 2:4].max(1)
    wide = (longest >= least - 4) & (longest <= LARGEST * max(rgb.shape[:2])) & ~_cut_off(stats, rgb.shape)
    patches: list[Patch] = []
    for label in np.argsort(-stats[:, cv2.CC_STAT_AREA], kind="stable"):
        if not wide[label] or label == 0 or len(patches) == options.max_shapes:
            continue
        window = _window(*stats[label, :4], room=10)
        patch = _cut_out(pixels[window], labels[window] == label)
        if patch is not None and max(patch.fits.values()) >= options.sure:
            mask = np.zeros(rgb.shape[:2], dtype=bool)
            mask[window] = patch.mask
            patches.append(patch._replace(mask=mask))
    return _by_rows(patches)


def box_of(mask: np.ndarray) -> tuple[float, float, float, float]:
    """Compute normalised ``(x0, y0, x1, y1)`` around the pixels of a ``(H, W)`` mask, far edges included."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    height, width = mask.shape
    edges = (columns[0] / width, rows[0] / height, (columns[-1] + 1) / width, (rows[-1] + 1) / height)
    return tuple(round(float(edge), 4) for edge in edges)


def name_color(rgb: np.ndarray) -> str:
    """Find the name in `COLORS` whose anchor is nearest to ``rgb`` (three values in 0..255) in the Oklab space."""
    names = [name for name, anchors in COLORS.items() for _ in anchors]
    anchors = np.array([anchor for group in COLORS.values() for anchor in group], dtype=float)
    return names[int(np.argmin(np.linalg.norm(_oklab(anchors) - _oklab(np.asarray(rgb, dtype=float)), axis=-1)))]


def _oklab(rgb: np.ndarray) -> np.ndarray:
    """Convert sRGB ``(..., 3)`` in 0..255 to Oklab, where equal distances are equal differences (Ottosson, 2020)."""
    value = rgb / 255
    linear = np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)
    cones = linear @ np.array([[0.4122215, 0.2119035, 0.0883025], [0.5363325, 0.6806995, 0.2817188],
                               [0.0514460, 0.1073970, 0.6299787]])  # fmt: skip
    return np.cbrt(cones) @ np.array([[0.2104543, 1.9779985, 0.0259040], [0.7936178, -2.4285922, 0.7827718],
                                      [-0.0040720, 0.4505937, -0.8086758]])  # fmt: skip


def _even_regions(pixels: np.ndarray, least: float) -> tuple[np.ndarray, list[tuple[int, Window]], np.ndarray]:
    """Label the regions of even colour.

    Returns:
        The label map ``(H, W)``; ``(label, window)`` of each region that may hold a shape, the largest first, where
        the window leaves room for what surrounds the region; and the background's rgb.
    """
    import cv2  # inside the function: registering a plugin must import nothing heavy

    step = np.maximum(_change(pixels, axis=0), _change(pixels, axis=1))
    even = (step <= max(10.0, 4 * float(np.median(step)))).astype(np.uint8)
    count, labels, stats, _ = cv2.connectedComponentsWithStats(even, connectivity=4)
    border = np.concatenate((labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    votes = np.bincount(border, minlength=count)
    votes[0] = 0  # label 0 is "not even"
    around = int(np.argmax(votes))
    background = np.median(pixels[labels == around], axis=0)
    wide = stats[:, :4][:, 2:].max(1) >= least - 4  # a region lacks up to two pixels of its shape on each side
    order = [k for k in np.argsort(-stats[:, cv2.CC_STAT_AREA], kind="stable") if wide[k] and k not in (0, around)]
    return labels, [(int(k), _window(*stats[k, :4])) for k in order], background


def _change(pixels: np.ndarray, axis: int) -> np.ndarray:
    """Compute the change of colour from each pixel to the next along an axis; the last repeats the one before it."""
    change = np.abs(np.diff(pixels, axis=axis)).max(-1)
    if not change.size:  # one pixel wide
        return np.zeros(pixels.shape[:2], dtype=np.float32)
    return np.concatenate((change, np.take(change, [-1], axis=axis)), axis=axis)


def _window(left: int, top: int, width: int, height: int, room: int = 6) -> Window:
    return slice(max(top - room, 0), top + height + room), slice(max(left - room, 0), left + width + room)


def _grow(pixels: np.ndarray, seed: np.ndarray, background: np.ndarray) -> Patch | None:
    """Grow a region to its smoothed edge and measure it; None when it does not stand out. Masks are window-sized."""
    import cv2

    region = seed.astype(np.uint8)
    ring = (cv2.dilate(region, np.ones((9, 9))) > 0) & (cv2.dilate(region, np.ones((5, 5))) == 0)
    color = np.median(pixels[seed], axis=0)
    around = np.median(pixels[ring], axis=0) if ring.any() else background
    if min(np.linalg.norm(color - around), np.linalg.norm(color - background)) < CONTRAST:
        return None
    cover = _coverage(pixels, color, around)
    _, labels = cv2.connectedComponents((cover >= 0.5).astype(np.uint8), connectivity=4)
    label = int(np.bincount(labels[seed]).argmax())
    if label == 0:
        return None
    mask = labels == label
    near = cv2.dilate(mask.astype(np.uint8), np.ones((3, 3)))
    return Patch(mask, _fits(cover * near), color)


def _coverage(pixels: np.ndarray, color: np.ndarray, around: np.ndarray) -> np.ndarray:
    """Compute how much of each pixel the patch covers, in [0, 1]: an edge pixel is a blend of the two colours."""
    span = color - around
    share = np.clip((pixels - around) @ span / (span @ span), 0, 1)
    off = np.linalg.norm(pixels - around - share[..., None] * span, axis=-1)
    return np.where(off < OFF_BLEND, share, 0).astype(np.float32)


def _fits(cover: np.ndarray) -> dict[str, float]:
    """Compute how well the outline of a coverage map fills the smallest circle, rectangle and triangle around it."""
    import cv2

    outline = _outline(cover)
    if outline is None:  # a hairline that fades when it is enlarged
        return dict.fromkeys(("circle", "rectangle", "triangle"), 0.0)
    hull = cv2.convexHull(outline)
    around = {
        "circle": np.pi * cv2.minEnclosingCircle(hull)[1] ** 2,
        "rectangle": float(np.prod(cv2.minAreaRect(hull)[1])),
        "triangle": cv2.minEnclosingTriangle(hull)[0],
    }
    area = cv2.contourArea(outline)
    return {label: min(area / size, 1.0) if size > 0 else 0.0 for label, size in around.items()}


def _outline(cover: np.ndarray) -> np.ndarray | None:
    """Find the longest outline of a coverage map, enlarged where the map is small."""
    import cv2

    cover = cv2.copyMakeBorder(cover, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    scale = max(1, round(OUTLINE / max(cover.shape)))
    large = cv2.resize(cover, None, fx=scale, fy=scale, interpolation=cv2.INTER_LINEAR)
    outlines, _ = cv2.findContours((large >= 0.5).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    return max(outlines, key=cv2.contourArea) if outlines else None


def _cut_off(stats: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Find OpenCV's components that reach the rim; a change of colour shows one pixel before it."""
    left, top, width, height = stats[:, :4].T
    return (left <= 1) | (top <= 1) | (left + width >= shape[1] - 1) | (top + height >= shape[0] - 1)


def _cut_out(pixels: np.ndarray, seed: np.ndarray) -> Patch | None:
    """Grow a flat region to its edge, photo or not around it, and measure it; None when its colour is not one."""
    import cv2

    color = np.median(pixels[seed], axis=0)
    distance = np.linalg.norm(pixels - color, axis=-1)
    if np.quantile(distance[seed], 0.9) > SPREAD:
        return None
    near = cv2.dilate(seed.astype(np.uint8), np.ones((17, 17)))
    _, labels = cv2.connectedComponents(((distance < EDGE) & (near > 0)).astype(np.uint8), connectivity=4)
    mask = labels == np.bincount(labels[seed]).argmax()
    cover = np.clip(1 - distance / (2 * EDGE), 0, 1).astype(np.float32)
    fits = _fits(cover * cv2.dilate(mask.astype(np.uint8), np.ones((3, 3))))
    return Patch(mask, _with_more_shapes(fits, cover * mask), color)


def _with_more_shapes(fits: dict[str, float], cover: np.ndarray) -> dict[str, float]:
    """Add the star, and call a rectangle with equal sides a square."""
    import cv2

    outline = _outline(cover)
    if outline is None:
        return fits
    hull = cv2.convexHull(outline)
    sides = sorted(cv2.minAreaRect(hull)[1])
    if sides[1] <= SQUARE * sides[0]:
        fits = {"square" if label == "rectangle" else label: fit for label, fit in fits.items()}
    disc = np.pi * cv2.minEnclosingCircle(hull)[1] ** 2
    even = cv2.contourArea(hull) / disc / PENTAGON if disc > 0 else 0.0
    return {**fits, "star": min(even, 1 / even) if even and _dents(outline, hull, 0.015 * disc) == 5 else 0.0}


def _dents(outline: np.ndarray, hull: np.ndarray, least: float) -> int:
    """Count the gaps of at least ``least`` pixels between an outline and its hull; a star has five."""
    import cv2

    left, top, width, height = cv2.boundingRect(hull)
    gap = np.zeros((height, width), dtype=np.uint8)
    cv2.fillPoly(gap, [hull], 1, offset=(-left, -top))
    cv2.fillPoly(gap, [outline], 0, offset=(-left, -top))
    stats = cv2.connectedComponentsWithStats(gap, connectivity=4)[2]
    return int((stats[1:, cv2.CC_STAT_AREA] >= least).sum())


def _by_rows(patches: Sequence[Patch]) -> list[Patch]:
    """Order patches from top to bottom, and from left to right where they stand in one row."""
    rows: list[list[tuple[tuple, Patch]]] = []
    for box, patch in sorted(((box_of(p.mask), p) for p in patches), key=lambda item: item[0][1]):
        middle = (box[1] + box[3]) / 2
        if rows and middle <= rows[-1][0][0][3]:
            rows[-1].append((box, patch))
        else:
            rows.append([(box, patch)])
    return [patch for row in rows for _, patch in sorted(row, key=lambda item: item[0][0])]


@moai.hookimpl
def register_experts(register) -> None:
    """Register the class; `moai` builds it when somebody asks for it."""
    register(Shapes)
