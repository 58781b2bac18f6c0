"""How images get the encoder's size: squeezed, cut, or padded as LLaVA-1.5 pads them."""

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import CLIPImageProcessor

from moai.model.processor.image_places import EncoderImagePlaces, encoder_image_processor

MEAN, STD = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SIZE = 28


def picture(size):
    noise = np.random.default_rng(0).integers(0, 255, (size[1] // 8 + 1, size[0] // 8 + 1, 3), dtype=np.uint8)
    return Image.fromarray(noise).resize(size, Image.Resampling.BICUBIC)


def squared(image):
    """LLaVA's ``expand2square``, stated apart: the picture in the middle of the mean colour."""
    side = max(image.size)
    made = Image.new("RGB", (side, side), tuple(int(255 * x) for x in MEAN))
    made.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
    return made


@pytest.mark.parametrize("size", [(80, 33), (31, 90), (56, 56)])
def test_pad_and_crop_are_llavas_and_clips(size):
    square = {"height": SIZE, "width": SIZE}
    clip = CLIPImageProcessor(size={"shortest_edge": SIZE}, crop_size=square, image_mean=MEAN, image_std=STD)
    image = picture(size)
    for fit, expected in (("crop", image), ("pad", squared(image))):
        places = EncoderImagePlaces(encoder_image_processor(SIZE, fit, MEAN, STD), 0, 4)
        pixels = places.encode([[image]])[1]["pixel_values"]
        assert places.size == (SIZE, SIZE) and pixels.shape == (1, 3, SIZE, SIZE)
        assert torch.equal(pixels, clip(expected, return_tensors="pt")["pixel_values"])
    assert np.array_equal(np.asarray(places.fitted(image)), np.asarray(squared(image)))


def test_images_of_one_batch_are_fitted_one_by_one():
    images = [picture((80, 33)), picture((31, 90)), picture((56, 56))]
    places = EncoderImagePlaces(encoder_image_processor(SIZE, "pad", MEAN, STD), 0, 4)
    together = places.encode([images[:2], [], images[2:]])[1]["pixel_values"]
    assert torch.equal(together, torch.cat([places.encode([[one]])[1]["pixel_values"] for one in images]))


def test_what_is_fitted_is_what_the_patches_lie_on():
    image = picture((80, 40))
    cut = EncoderImagePlaces(encoder_image_processor(SIZE, "crop", MEAN, STD), 0, 4).fitted(image)
    assert np.array_equal(np.asarray(cut), np.asarray(image.crop((20, 0, 60, 40))))
    assert EncoderImagePlaces(encoder_image_processor(SIZE, "resize", MEAN, STD), 0, 4).fitted(image) is image
