"""Find recipes by name: in ``./recipes`` first, then among those that moai and its plugins registered.

Knows: folders and names, not what a recipe holds. A name is a file's path below one of these folders without
``.yaml``: ``easy-vqa``, ``ablations/step2-only``. A name that is both a user's and moai's means the user's.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path, PurePath

from moai.errors import RecipeError, nearest
from moai.our_plugins import how_to_install
from moai.plugins import registry

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
    name = path.as_posix()
    own = FOLDER / f"{path}.yaml"
    if own.is_file():
        return own
    if name in registry().recipes:
        return registry().recipes[name]
    if (install := how_to_install("recipe", name)) is not None:
        raise RecipeError(f"the recipe '{name}' comes with a plugin that is not installed; {install}")
    raise RecipeError(f"no recipe '{name}' {_where()}{_nearest(name)}")


def find_base(path: Path, base: str) -> Path:
    """Return the file that the recipe at ``path`` extends: one beside it, or else one that is found by name.

    Raises:
        RecipeError: no such file, with the nearest name; or a path that leads elsewhere than beside the recipe.
    """
    parts = Path(base).parts
    if Path(base).is_absolute() or ".." in parts[1:]:
        raise RecipeError(f"{path} extends '{base}'; name a recipe in its own folder, below it, or one level above")
    beside = path.parent / base
    if beside.is_file() and beside.suffix in SUFFIXES:
        return beside
    if _is_name(Path(base)) and not Path(base).is_file():
        return find_recipe(base)
    siblings = [item.name for item in path.parent.glob("*.yaml") if item != path]
    raise RecipeError(f"{path} extends '{base}', which is not there{nearest(base, siblings)}")


def find_recipe_folder(path_or_name: str | Path) -> Path:
    """Return the folder of recipes that a path or a name means.

    Raises:
        RecipeError: no such folder, or no recipes in it; the message has the nearest name of both places.
    """
    path = Path(path_or_name)
    if _holds_recipes(path):
        return path
    if _is_name(path):
        if _holds_recipes(FOLDER / path):
            return FOLDER / path
        for name, file in registry().recipes.items():
            if PurePath(name).parent == path:
                return file.parent
    known = {PurePath(name).parent.as_posix() for name in recipe_names()} - {"."}
    raise RecipeError(
        f"there are no recipes in {path}, neither here nor {_where()}; "
        f"name a folder of YAML files that extend one recipe{nearest(path.name, known)}"
    )


def recipe_names() -> list[str]:
    """Return the names of both places, sorted, each once."""
    own = {path.relative_to(FOLDER).with_suffix("").as_posix() for path in FOLDER.rglob("*.yaml")}
    return sorted({*own, *registry().recipes})


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
    return f"in ./{FOLDER} or among those of moai and its plugins"


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
