"""What ``plan`` has to know of a host that sees for itself: how many tokens its processor makes of a picture.

Knows: the host's configuration and processor files; its weights are not needed, and those of a hub id not downloaded.
"""

from __future__ import annotations

from pathlib import Path

from PIL import Image
from transformers import PreTrainedConfig

from moai.assets.resolver import resolve
from moai.errors import AssetError, HostError, RecipeError
from moai.model.host.native_vision import HOST, host_image_token
from moai.model.processor.native_vision import SeeingProcessor
from moai.recipe.schema import Recipe
from moai.training.native_vision_build import host_processor

PICTURE = (640, 480)  # pixels: width, height


def refuse_shapes(**shapes: str | None) -> None:
    """A shape stands for a Llama or a CLIP, and neither of them is a vision-language model.

    Raises:
        RecipeError: names the option.
    """
    for name, given in shapes.items():
        if given:
            option = f"--{name.replace('_', '-')}"
            raise RecipeError(
                f"{option} cannot describe a host that sees for itself (host.sees: true); leave it out, "
                "and give in host.reference a folder with the host's config.json and processor files"
            )


def seeing_tokens(recipe: Recipe, config: PreTrainedConfig, picture: tuple[int, int]) -> int:
    """How many tokens the host's processor makes of a blank picture.

    Args:
        recipe: with ``host.sees: true``.
        config: the host's.
        picture: width and height in pixels.

    Raises:
        AssetError: there are no processor files.
    """
    reference, revision = recipe.host.reference, recipe.host.revision
    here = Path(reference).expanduser().exists() or ":" in reference
    try:
        own = host_processor(reference, resolve(reference) if here else reference, revision)
    except HostError as error:
        raise AssetError(f"{error}; a plan needs these files to know how many tokens a picture is") from None
    processor = SeeingProcessor(own)
    [row], _ = processor.place([[host_image_token(config)]], [[Image.new("RGB", picture)]])
    return len(row)


def seeing_arguments(config: PreTrainedConfig) -> dict:
    """What of ``MoaiConfig`` says that the host sees for itself."""
    return {"vision": {"reference": HOST}, "image_token_id": host_image_token(config)}
