"""Every odd or broken picture of the bad-input list: converted, or a sentence that names source and fix."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from moai import images
from moai.errors import ImageError
from moai.images import has_metadata, image_key, image_origin, read_image

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def encode(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def png_header(width: int, height: int) -> bytes:
    """A tiny PNG that claims any size."""

    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


def noise(height: int = 40, width: int = 30) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_path_bytes_image_and_array_give_the_same_pixels(tmp_path):
    array = noise()
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.fromarray(array)))
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path), array):
        image = read_image(source)
        assert image.mode == "RGB"
        assert np.array_equal(np.asarray(image), array)


def test_missing_file_names_itself(tmp_path):
    with pytest.raises(ImageError, match=r"nowhere\.png.*does not exist; check the path"):
        read_image(tmp_path / "nowhere.png")


def test_folder(tmp_path):
    with pytest.raises(ImageError, match="is a folder; pass the files in it"):
        read_image(tmp_path)


def test_empty_file_and_empty_bytes(tmp_path):
    path = tmp_path / "empty.jpg"
    path.touch()
    with pytest.raises(ImageError, match=r"empty\.jpg' is empty \(0 bytes\)"):
        read_image(path)
    with pytest.raises(ImageError, match="bytes are empty"):
        read_image(b"")


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF"])
@pytest.mark.parametrize("share", [0.1, 0.6, 0.9])
def test_truncated_file(tmp_path, kind, share):
    data = encode(Image.fromarray(noise()), kind)
    path = tmp_path / "cut"
    path.write_bytes(data[: int(len(data) * share)])
    with pytest.raises(ImageError, match="cut' is .*(damaged|truncated)"):
        read_image(path)


def test_text_is_no_image(tmp_path):
    path = tmp_path / "notes.png"
    path.write_text("hello, world " * 20)
    with pytest.raises(ImageError, match="not an image in a known format.*save it as PNG or JPEG"):
        read_image(path)


@pytest.mark.parametrize("size", [(0, 4), (4, 0)])
def test_zero_sized(size):
    with pytest.raises(ImageError, match="without a single pixel"):
        read_image(Image.new("RGB", size))
    with pytest.raises(ImageError, match="without a single pixel"):
        read_image(np.zeros((*size, 3), np.uint8))
    with pytest.raises(ImageError):
        read_image(png_header(*size))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("size", [(10_000, 10_000), (60_000, 60_000)])
def test_decompression_bomb_is_refused_before_decoding(size):
    data = png_header(*size)
    assert len(data) < 200
    with pytest.raises(ImageError, match="the limit is 89,478,485 pixels: scale it down first"):
        read_image(data)


def test_the_limit_is_ours_even_when_pillows_is_off(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    monkeypatch.setattr(images, "MAX_PIXELS", 100)
    with pytest.raises(ImageError, match="40 pixels; the limit is 100"):
        read_image(Image.new("RGB", (30, 40)))


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_sixteen_bit_is_scaled_not_clipped(kind):
    wide = (np.arange(256, dtype=np.uint16).reshape(16, 16)) * 257
    pixels = np.asarray(read_image(encode(Image.fromarray(wide), kind)))
    assert np.array_equal(pixels[..., 0], np.arange(256).reshape(16, 16))
    assert np.array_equal(pixels[..., 0], pixels[..., 2])


def test_thirty_two_bit_grey():
    assert read_image(Image.fromarray(np.full((2, 2), 0.5, np.float32))).getpixel((0, 0)) == (128, 128, 128)
    assert read_image(Image.fromarray(np.full((2, 2), 200.0, np.float32))).getpixel((0, 0)) == (200, 200, 200)
    assert read_image(Image.fromarray(np.full((2, 2), 65535, np.int32))).getpixel((0, 0)) == (255, 255, 255)
    with pytest.raises(ImageError, match="scale them to 0..65535"):
        read_image(Image.fromarray(np.full((2, 2), -5, np.int32)))
    with pytest.raises(ImageError, match="scale them"):
        read_image(Image.fromarray(np.full((2, 2), np.nan, np.float32)))


def test_cmyk():
    pixel = read_image(encode(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), "JPEG")).getpixel((4, 4))
    assert pixel[0] > 240 and pixel[1] < 15 and pixel[2] < 15


def pixels_of(image):
    return [tuple(pixel) for pixel in np.asarray(image).reshape(-1, 3).tolist()]


def test_palette_and_its_transparency():
    plain = Image.new("P", (2, 1))
    plain.putpalette([*RED, *GREEN])
    plain.putdata([0, 1])
    assert pixels_of(read_image(encode(plain))) == [RED, GREEN]
    see_through = read_image(encode(plain, transparency=1))
    assert pixels_of(see_through) == [RED, (255, 255, 255)]


@pytest.mark.parametrize("mode,colour", [("RGBA", (255, 0, 0, 0)), ("LA", (0, 0)), ("La", (0, 0))])
def test_transparency_lies_over_white(mode, colour):
    assert read_image(Image.new(mode, (2, 2), colour)).getpixel((0, 0)) == (255, 255, 255)


def test_half_transparent_blends():
    assert read_image(Image.new("RGBA", (1, 1), (0, 0, 0, 128))).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG"])
def test_animation_gives_its_first_frame(kind):
    frames = [Image.new("RGB", (8, 8), colour) for colour in (RED, GREEN, BLUE)]
    data = encode(
        frames[0], kind, save_all=True, append_images=frames[1:], **({"lossless": True} if kind == "WEBP" else {})
    )
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert read_image(data).getpixel((0, 0)) == RED


def test_exif_rotation_is_applied_once():
    image = Image.new("RGB", (4, 2), RED)
    image.putpixel((0, 0), BLUE)
    exif = Image.Exif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show it upright
    upright = read_image(encode(image, "PNG", exif=exif))
    assert upright.size == (2, 4)
    assert upright.getpixel((1, 0)) == BLUE
    assert not has_metadata(upright)
    assert np.array_equal(np.asarray(read_image(upright)), np.asarray(upright))
    assert np.array_equal(np.asarray(read_image(Image.open(io.BytesIO(encode(image, exif=exif))))), np.asarray(upright))


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_costs_the_rotation_only(monkeypatch, caplog):
    data = encode(Image.new("RGB", (4, 2), RED), "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff\xff\xff garbage")
    assert read_image(data).size == (4, 2)

    def damaged(self):
        raise SyntaxError("not a TIFF file")

    monkeypatch.setattr(Image.Image, "getexif", damaged)
    assert read_image(Image.new("RGB", (4, 2), RED)).size == (4, 2)
    assert "EXIF data is damaged" in caplog.text


@pytest.mark.parametrize(
    "array,grey",
    [
        (np.full((2, 3), 7, np.uint8), 7),
        (np.full((2, 3, 1), 7, np.uint8), 7),
        (np.full((2, 3, 3), 257 * 9, np.uint16), 9),
        (np.full((2, 3), 0.2, np.float64), 51),
        (np.full((2, 3, 3), 1.0, np.float16), 255),
    ],
)
def test_arrays(array, grey):
    image = read_image(array)
    assert image.size == (3, 2)
    assert image.getpixel((0, 0)) == (grey, grey, grey)


@pytest.mark.parametrize(
    "array,fix",
    [
        (np.zeros((3, 8, 8), np.uint8), r"channels last with array.transpose\(1, 2, 0\)"),
        (np.zeros((8,), np.uint8), r"the shape must be \(H, W\)"),
        (np.zeros((8, 8, 2), np.uint8), "the shape must be"),
        (np.full((8, 8), 2.0), "divide by 255"),
        (np.full((8, 8), np.nan), "NaN"),
        (np.zeros((8, 8), np.int64), r"array.astype\('uint8'\)"),
        (np.zeros((8, 8), object), "uint8"),
    ],
)
def test_bad_arrays_name_the_fix(array, fix):
    with pytest.raises(ImageError, match=fix):
        read_image(array)


def test_urls_are_not_fetched():
    for url in ("https://example.org/a.png", "file:///etc/passwd", "data:image/png;base64,AAAA"):
        with pytest.raises(ImageError, match="URLs are not fetched; download"):
            read_image(url)


def test_other_types():
    with pytest.raises(ImageError, match="from NoneType; pass a path"):
        read_image(None)


def test_key_depends_on_pixels_and_size_only(tmp_path):
    array = noise(4, 6)
    key = image_key(Image.fromarray(array))
    assert len(key) == 64
    assert image_key(read_image(encode(Image.fromarray(array), "BMP"))) == key
    assert image_key(Image.fromarray(array.reshape(6, 4, 3))) != key
    array[0, 0, 0] ^= 1
    assert image_key(Image.fromarray(array)) != key


# --- where a picture is from -----------------------------------------------------------------------------------------


def test_a_picture_and_its_copies_know_their_file(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encode(Image.new("RGB", (4, 2), RED)))
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    for source in (path, str(path), Image.open(path), read_image(path), read_image(path).copy()):
        origin = image_origin(read_image(source))
        assert (origin.path, origin.sha256()) == (str(path), digest)
    origin = image_origin(read_image(path.read_bytes()))
    assert (origin.path, origin.sha256()) == ("", digest)
    assert image_key(read_image(path)) == image_key(Image.new("RGB", (4, 2), RED))
    path.unlink()
    assert image_origin(read_image(Image.new("RGB", (4, 2)))).sha256() == ""


def test_no_file_names_another(tmp_path):
    text = PngInfo()
    text.add_text("moai.origin", "/etc/passwd")
    data = encode(Image.new("RGB", (4, 2), RED), pnginfo=text)
    assert Image.open(io.BytesIO(data)).info["moai.origin"] == "/etc/passwd"
    assert image_origin(read_image(Image.open(io.BytesIO(data)))).path == ""
    assert image_origin(read_image(data)).path == ""
