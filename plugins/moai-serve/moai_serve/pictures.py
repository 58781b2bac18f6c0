"""Pictures of a request: data URLs to decoded images, never an address that would have to be fetched.

Knows: base64, and Pillow as far as a picture's header. What is decoded goes through ``moai.read_image``.
"""

from __future__ import annotations

import base64
import binascii
import io
import re
import warnings
from collections.abc import Callable

from PIL import Image

import moai
from moai.errors import ImageError
from moai_serve.errors import refused

FORMATS = ("PNG", "JPEG", "WEBP", "GIF")  # OpenAI's; each format more is a parser more that strangers can reach
_DATA_URL = re.compile(r"data:image/(?:png|jpe?g|webp|gif);base64,", re.IGNORECASE)


def read_pictures(urls: list[str], max_pixels: int, hold: Callable[[int], None]) -> list[Image.Image]:
    """Decode the pictures of a request.

    Args:
        urls: data URLs, ``data:image/png;base64,..``.
        max_pixels: of all of them together, by their headers; nothing is decoded before that is known.
        hold: called with the bytes that a picture will take, before it takes them.

    Raises:
        ApiError: no data URL, no picture, or too many pixels.
    """
    files = [_content(url) for url in urls]
    sizes = [_size(data) for data in files]
    pixels = sum(width * height for width, height in sizes)
    if pixels > max_pixels:
        raise refused(
            f"the pictures have {pixels:,} pixels and the limit is {max_pixels:,}; scale them down",
            "too_many_pixels", "messages", 413,
        )  # fmt: skip
    hold(3 * pixels)
    made = []
    for data in files:
        try:
            made.append(moai.read_image(data))
        except ImageError as error:
            raise refused(str(error), "invalid_image", "messages") from error
    return made


def _content(url: str) -> bytes:
    head = _DATA_URL.match(url)
    if head is None:
        raise refused(
            "a picture has to be a data URL of a PNG, JPEG, WebP or GIF file (data:image/png;base64,..); "
            "addresses are not fetched and paths are not read",
            "invalid_image_url", "messages",
        )  # fmt: skip
    try:
        return base64.b64decode(url[head.end() :], validate=True)
    except (binascii.Error, ValueError) as error:
        raise refused("a picture's data URL is no base64; encode the file's bytes", "invalid_image_url", "messages") \
            from error  # fmt: skip


def _size(data: bytes) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # the limit of pixels is ours
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return image.size
    except Image.DecompressionBombError as error:
        raise refused("a picture is far too large; scale it down", "too_many_pixels", "messages", 413) from error
    except Exception as error:  # a parser that is fed damaged bytes raises nearly anything
        raise refused(
            f"a picture of {len(data):,} bytes is no PNG, JPEG, WebP or GIF file, or is damaged; send the whole file",
            "invalid_image", "messages",
        ) from error  # fmt: skip
