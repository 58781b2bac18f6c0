"""Find recipes by name: in ``./recipes`` first, then among those that are installed with moai.

Knows: folders and names, not what a recipe holds. A name is a file's path below one of these folders without
``.yaml``: ``quickstart``, ``ablations/step2-only``. A name that is both a user's and moai's means the user's.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path, PurePath

from moai.errors import RecipeError, nearest

FOLDER = Path("recipes")  # the user's own, in the working folder
SUFFIXES = (".yaml", ".yml")


def find_recipe(path_or_name: str | Path) -> Path:
    """Return the file that a path or a name means.

    Raises:
        RecipeError: no such file; the message has the nearest name of both places.
    """
    path = Path(path_or_name)
    if path.is_file():
        return path
    if not _is_name(path):
        beside = [str(item) for item in sorted(path.parent.glob("*.yaml"))]
        raise RecipeError(f"no recipe at {path}{nearest(str(path), beside) if beside else _nearest(path.stem)}")
    for folder in places():
        found = folder / f"{path}.yaml"
        if found.is_file():
            return found
    raise RecipeError(f"no recipe '{path.as_posix()}' {_where()}{_nearest(path.as_posix())}")


def find_recipe_folder(path_or_name: str | Path) -> Path:
    """Return the folder of recipes that a path or a name means.

    Raises:
        RecipeError: no such folder, or no recipes in it; the message has the nearest name of both places.
    """
    path = Path(path_or_name)
    if _holds_recipes(path):
        return path
    if _is_name(path):
        for folder in places():
            if _holds_recipes(folder / path):
                return folder / path
    known = {PurePath(name).parent.as_posix() for name in recipe_names()} - {"."}
    raise RecipeError(
        f"there are no recipes in {path}, neither here nor {_where()}; "
        f"name a folder of YAML files that extend one recipe{nearest(path.name, known)}"
    )


def recipe_names() -> list[str]:
    """Return the names of both places, sorted, each once."""
    found = {item.relative_to(folder).with_suffix("") for folder in places() for item in folder.rglob("*.yaml")}
    return sorted(name.as_posix() for name in found)


def places() -> Iterator[Path]:
    """Yield the folders in which names are looked up, those that exist, the user's own first."""
    if FOLDER.is_dir():
        yield FOLDER
    shipped = shipped_folder()
    if shipped is not None:
        yield shipped


def shipped_folder() -> Path | None:
    """Return the folder of the recipes that are installed with moai.

    ``None`` where there is no such folder: moai is used from a clone without being installed, or from a zip file.
    ``extends`` needs the files beside each other, so single files are never unpacked from a zip.
    """
    spec = importlib.util.find_spec("moai.recipes")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent
    return folder if folder.is_dir() else None


def _where() -> str:
    if shipped_folder() is None:
        return f"in ./{FOLDER} (moai's own come with an installation: in a clone, pip install -e .)"
    return f"in ./{FOLDER} or among moai's own"


def _nearest(name: str) -> str:
    hint = nearest(name, recipe_names())
    if "did you mean" in hint:
        return hint
    # All of them would be fifty names: those in a folder are summed up by it.
    return nearest(name, {f"{top}/.." if rest else top for top, _, rest in (n.partition("/") for n in recipe_names())})


def _is_name(path: Path) -> bool:
    return path.suffix not in SUFFIXES and not path.is_absolute() and bool(path.parts) and ".." not in path.parts


def _holds_recipes(folder: Path) -> bool:
    return next(folder.glob("*.yaml"), None) is not None
