"""The command line, and a picture to ask about."""

import pytest


@pytest.fixture
def run_cli():
    """Call ``run_cli("import-official", "checkpoint", "out")``; the result has stdout, stderr and exit_code."""
    from click.testing import CliRunner

    from moai.cli.main import cli

    def run(*arguments: object):
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="moai")

    return run


@pytest.fixture
def picture():
    """A 64 x 64 RGB picture of a red disc on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="red")
    return image
