"""What every test relies on: no hub, few threads, and a few fixtures. The asset cache is the user's own on purpose.

The tests run with two threads, or with one in each process of ``pytest -n``.

``MOAI_TEST_THREADS=1`` runs the tests with another number of threads. No test depends on it, nor on the processor:
``ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2`` and ``ATEN_CPU_CAPABILITY=default`` take other kernels.
"""

from __future__ import annotations

import os

# Set before torch or huggingface_hub is imported by any test.
os.environ["HF_HUB_OFFLINE"] = "1"
_threads = "1" if "PYTEST_XDIST_WORKER" in os.environ else "2"
os.environ["OMP_NUM_THREADS"] = os.environ.get(
    "MOAI_TEST_THREADS", _threads
)  # torch reads its number of threads from here
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
for _name in ("MOAI_PLUGINS", "MOAI_DEBUG"):
    os.environ.pop(_name, None)

import pytest  # noqa: E402
import setuptools  # noqa: E402, F401  (before anything imports distutils: torch's compiler needs it, and refuses if late)


@pytest.fixture(scope="session", autouse=True)
def versions_are_not_compared():
    """No test depends on what is newer than tested: the line about it counts as said, unless a test asks for it."""
    from moai import dependencies

    dependencies._said = True


@pytest.fixture
def picture():
    """A 64 x 64 RGB picture of a red disc on white."""
    from PIL import Image, ImageDraw

    image = Image.new("RGB", (64, 64), "white")
    ImageDraw.Draw(image).ellipse((12, 12, 52, 52), fill="red")
    return image


@pytest.fixture
def picture_file(picture, tmp_path):
    """The same picture as a PNG file."""
    path = tmp_path / "picture.png"
    picture.save(path)
    return path


@pytest.fixture
def run_cli():
    """Call ``run_cli("train", "recipe.yaml")``; the result has stdout, stderr and exit_code."""
    from click.testing import CliRunner

    from moai.cli.main import cli

    def run(*arguments: object):
        return CliRunner().invoke(cli, [str(argument) for argument in arguments], prog_name="moai")

    return run
