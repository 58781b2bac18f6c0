"""Read any picture into plain 8-bit RGB, or raise an error of one sentence.

Knows: Pillow and numpy. Every image enters the library through :func:`read_image`, so that experts, the vision encoder
and the cache all get the same pixels: RGB, EXIF rotation applied, transparency over white, 16 bits scaled to 8.
"""

from __future__ import annotations

import functools
import hashlib
import io
import logging
import os
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from moai.errors import ImageError

log = logging.getLogger("moai")

_ORIGIN = "moai.origin"  # entry of ``Image.info``, which copies of a picture keep
MAX_PIXELS = 89_478_485  # Pillow's own warning limit: 256 MB as RGB; checked before anything is decoded
# Formats that Pillow decodes by itself. EPS is left out because it starts Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "DIB", "TIFF", "WEBP", "PPM", "ICO", "TGA", "AVIF", "JPEG2000", "PCX")
_CONVERT = "open it in an image editor and save it as PNG or JPEG"


def read_image(source: Any) -> Image.Image:
    """Read one image.

    Args:
        source: a path; the bytes of an image file; a PIL image (an animation as its current frame); or a numpy array
            ``(H, W)``, ``(H, W, 1)``, ``(H, W, 3)`` or ``(H, W, 4)``, RGB order, of uint8, uint16 or floats in [0, 1].

    Returns:
        A new RGB image without metadata but :func:`image_origin`. Of an animated file the first frame.

    Raises:
        ImageError: missing, empty, truncated, zero-sized, too large, or no image; names the source and the fix.
    """
    if isinstance(source, Image.Image):
        return _decode(source, "the PIL image")
    if isinstance(source, np.ndarray):
        return _from_array(source)
    if isinstance(source, (bytes, bytearray, memoryview)):
        return _from_bytes(bytes(source))
    if isinstance(source, (str, os.PathLike)):
        return _from_path(source)
    raise ImageError(
        f"cannot read an image from {type(source).__name__}; pass a path, bytes, a PIL image or a numpy array"
    )


@dataclass(frozen=True)
class Origin:
    """Say which file a picture was read from, as far as that is known."""

    path: str = ""
    """As it was given; empty for bytes, arrays and pictures that were made."""
    digest: str = ""
    """SHA-256 of the bytes, in hex, where the picture was read from bytes."""

    def sha256(self) -> str:
        """Return the SHA-256 of the file's bytes in hex; empty where there is no file, or it is gone."""
        if self.digest or not self.path:
            return self.digest
        try:
            with open(self.path, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest()
        except OSError:
            return ""


def image_origin(image: Image.Image) -> Origin:
    """Return which file a picture of :func:`read_image` was read from; a copy of the picture knows it as well."""
    found = image.info.get(_ORIGIN)
    if isinstance(found, Origin):  # a file's own metadata are texts, so that no file can name another
        return found
    path = getattr(image, "filename", "")
    return Origin(os.fsdecode(path)) if isinstance(path, (str, bytes)) and path else Origin()


def has_metadata(image: Image.Image) -> bool:
    """Return whether a picture carries more than its origin, such as the orientation of a photograph."""
    return any(name != _ORIGIN for name in image.info)


def image_key(image: Image.Image) -> str:
    """Hash the size and the RGB bytes (SHA-256, hex): equal exactly when the pixels are."""
    rgb = image if image.mode == "RGB" else read_image(image)
    digest = hashlib.sha256(f"RGB {rgb.width}x{rgb.height}\n".encode())
    digest.update(rgb.tobytes())
    return digest.hexdigest()


def _from_path(source: str | os.PathLike[str]) -> Image.Image:
    path = os.fspath(source)
    name = f"image '{os.fsdecode(path)}'"
    text = os.fsdecode(path)
    if "://" in text or text.startswith("data:"):
        raise ImageError(f"{name[:120]} is a URL, and URLs are not fetched; download the picture and pass its path")
    if "\0" in text:
        raise ImageError("an image path contains a NUL character; pass file contents as bytes, not as str")
    if os.path.isdir(path):
        raise ImageError(f"{name} is a folder; pass the files in it")
    if not os.path.exists(path):
        raise ImageError(f"{name} does not exist; check the path")
    if not os.path.isfile(path):  # a pipe or a device could block for ever
        raise ImageError(f"{name} is not a regular file; copy it to a file first")
    try:
        if os.path.getsize(path) == 0:
            raise ImageError(f"{name} is empty (0 bytes); copy or download it again")
        with open(path, "rb") as file:
            return _from(Origin(text), _from_file(file, name))
    except OSError as error:
        raise ImageError(f"{name} cannot be opened: {error.strerror or error}; check its permissions") from error


def _from_bytes(data: bytes) -> Image.Image:
    if not data:
        raise ImageError("the image bytes are empty; pass the whole contents of an image file")
    image = _from_file(io.BytesIO(data), f"the image in {len(data)} bytes")
    return _from(Origin(digest=hashlib.sha256(data).hexdigest()), image)


def _from(origin: Origin, image: Image.Image) -> Image.Image:
    image.info[_ORIGIN] = origin
    return image


def _from_file(file: Any, name: str) -> Image.Image:
    try:
        image = Image.open(file, formats=_formats())
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise ImageError(f"{name} is far too large to decode; {_limit()}") from error
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not an image in a known format, or its start is damaged; {_CONVERT}") from error
    except Exception as error:  # a parser fed damaged bytes raises nearly anything: struct.error, SyntaxError, ...
        raise ImageError(f"{name} is damaged or truncated ({_summary(error)}); copy or download it again") from error
    with image:
        return _decode(image, name)


@functools.cache
def _formats() -> tuple[str, ...]:
    Image.init()  # Pillow loads its rarer readers on demand only, and a build may lack some
    return tuple(name for name in FORMATS if name in Image.OPEN)


def _decode(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.width, image.height, name)  # by the header, before a pixel is decoded
    try:
        image.load()
    except Exception as error:  # as above: damaged pixel data raises nearly anything
        raise ImageError(f"{name} is damaged or truncated ({_summary(error)}); copy or download it again") from error
    rgb = _upright(_to_rgb(image, name), image, name)
    plain = rgb.copy() if rgb is image else rgb
    origin = image_origin(image)
    plain.info.clear()  # without EXIF, so that reading twice does not rotate twice
    return plain if origin == Origin() else _from(origin, plain)


def _upright(rgb: Image.Image, image: Image.Image, name: str) -> Image.Image:
    """Rotate ``rgb`` by the EXIF orientation of ``image``."""
    try:
        orientation = image.getexif().get(0x0112, 1)
    except Exception as error:  # broken metadata must not cost a picture whose pixels are sound
        log.warning("%s: its EXIF data is damaged (%s); shown without rotation", name, _summary(error))
        return rgb
    if orientation in (1, None):
        return rgb
    # A blank EXIF with this one entry: whatever else is in the original cannot make the rotation fail.
    exif = Image.Exif()
    exif[0x0112] = orientation
    rgb = rgb.copy()
    rgb.info = {"exif": exif.tobytes()}
    ImageOps.exif_transpose(rgb, in_place=True)
    return rgb


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    if image.mode.startswith("I") or image.mode == "F":
        return _scaled(np.asarray(image), name)
    try:
        if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
            layer = image.convert("LA" if image.mode == "La" else "RGBA").convert("RGBA")
            return Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer).convert("RGB")
        return image.convert("RGB")
    except ValueError as error:
        raise ImageError(f"{name} has the colour mode {image.mode}, which has no conversion; {_CONVERT}") from error


def _scaled(pixels: NDArray[Any], name: str) -> Image.Image:
    """Scale grey values wider than 8 bits by the smallest usual white point that holds them all."""
    wide = np.nan_to_num(pixels.astype(np.float32), nan=-1.0, posinf=np.inf, neginf=-np.inf)
    low, high = float(wide.min()), float(wide.max())
    floating = pixels.dtype.kind == "f"
    white = next((w for w in ((1.0, 255.0, 65535.0) if floating else (65535.0, 2.0**31 - 1)) if high <= w), None)
    if low < 0 or white is None:
        raise ImageError(f"{name} holds grey values from {low:g} to {high:g}; scale them to 0..65535 and save it again")
    grey = np.rint(wide * (255.0 / white)).astype(np.uint8)
    return Image.fromarray(grey).convert("RGB")


def _from_array(array: NDArray[Any]) -> Image.Image:
    name = f"the {array.dtype} array of shape {array.shape}"
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        swap = "; move the channels last with array.transpose(1, 2, 0)" if array.shape[:1] in ((1,), (3,), (4,)) else ""
        raise ImageError(f"{name} is no image; the shape must be (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){swap}")
    _check_size(array.shape[1], array.shape[0], name)
    return _decode(Image.fromarray(np.ascontiguousarray(_to_uint8(array, name))), name)


def _to_uint8(array: NDArray[Any], name: str) -> NDArray[Any]:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return np.rint(array / np.float32(257)).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ImageError(f"{name} must be uint8, uint16 or floats in [0, 1]; convert it with array.astype('uint8')")
    if not np.isfinite(array).all():
        raise ImageError(f"{name} contains NaN or infinity; replace them with numbers in [0, 1]")
    if array.min() < 0 or array.max() > 1:
        raise ImageError(f"{name} has values outside [0, 1]; divide by 255, or pass array.astype('uint8')")
    return np.rint(array * 255.0).astype(np.uint8)


def _check_size(width: int, height: int, name: str) -> None:
    if width < 1 or height < 1:
        raise ImageError(f"{name} is {width} x {height}, without a single pixel; pass an image of at least 1 x 1")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name} is {width} x {height} pixels; {_limit()}")


def _limit() -> str:
    return f"the limit is {MAX_PIXELS:,} pixels: scale it down first"


def _summary(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:160]
