"""Names of recipes and of their folders: the user's own first, then moai's, from any working folder."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from moai.errors import RecipeError
from moai.plugins import load_registry
from moai.recipe import places as recipe_places
from moai.recipe.loading import resolve
from moai.recipe.places import find_recipe, find_recipe_folder, recipe_names

ROOT = Path(__file__).parents[2]
FOLDERS = [ROOT / "recipes", *ROOT.glob("plugins/*/*/recipes")]
SHIPPED = {path.relative_to(f).with_suffix("").as_posix(): path for f in FOLDERS for path in f.rglob("*.yaml")}
NAMES = sorted(SHIPPED)


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    """Every test runs in an empty working folder outside the clone."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


def own(name: str, text: str = "") -> Path:
    path = Path("recipes") / f"{name}.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_each_recipe_of_the_clone_is_found_by_its_name_anywhere():
    assert len(NAMES) > 40 and recipe_names() == NAMES
    for name in NAMES:
        found = find_recipe(name)
        assert found.samefile(SHIPPED[name])
        assert resolve(found)["name"] == found.stem  # what it extends is there too


@pytest.mark.parametrize("name", NAMES)
def test_a_dry_run_prints_each_of_them(run_cli, name):
    done = run_cli("train", name, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert f"name: {Path(name).name}\n" in done.stdout


def test_a_recipe_of_the_users_own_comes_first():
    mine = own("easy-vqa")
    own("ablations/step2-only")
    assert find_recipe("easy-vqa") == mine
    assert find_recipe("ablations/step2-only") == Path("recipes/ablations/step2-only.yaml")
    assert find_recipe("ablations/every-2").is_absolute()  # moai's, although the user has a folder of that name
    Path("easy-vqa").write_text("")  # a file that is named itself comes before every name
    assert find_recipe("easy-vqa") == Path("easy-vqa")


def test_a_name_may_have_a_dot_and_a_path_is_no_name():
    own("llava-1.5/finetune")
    assert find_recipe("llava-1.5/finetune") == Path("recipes/llava-1.5/finetune.yaml")
    for path in ("recipes/easy-vqa.yaml", "../recipes/easy-vqa", str(Path("easy-vqa").absolute())):
        with pytest.raises(RecipeError, match="^no recipe at "):
            find_recipe(path)


def test_an_unknown_name_gets_the_nearest_of_both_places():
    own("barcodes")
    near = {
        "easy-vga": "easy-vqa",
        "quickstrat": "quickstart",
        "barcode": "barcodes",
        "step2-only": "ablations/step2-only",
    }
    for given, meant in near.items():
        with pytest.raises(RecipeError) as caught:
            find_recipe(given)
        where = "in ./recipes or among those of moai and its plugins"
        assert str(caught.value) == f"no recipe '{given}' {where}; did you mean '{meant}'?"
    with pytest.raises(RecipeError, match="known: ablations-guided/.., ablations-scenes/.., ablations/.., barcodes"):
        find_recipe("xyz")


def test_a_missing_file_gets_the_nearest_beside_it():
    own("barcodes")
    with pytest.raises(RecipeError, match="no recipe at recipes/barcode.yaml; did you mean 'recipes/barcodes.yaml'"):
        find_recipe("recipes/barcode.yaml")


def test_folders_are_found_by_name_as_well():
    assert find_recipe_folder("ablations-scenes").samefile(SHIPPED["ablations-scenes/scenes-without-tally"].parent)
    moais = find_recipe_folder("ablations-guided")
    assert moais.samefile(ROOT / "recipes" / "ablations-guided")
    own("ablations-guided/mine")
    assert find_recipe_folder("ablations-guided") == Path("recipes/ablations-guided")
    Path("ablations").mkdir()  # of results, say; it holds no recipes and is in nobody's way
    assert find_recipe_folder("ablations").samefile(ROOT / "recipes" / "ablations")
    Path("ablations/one.yaml").write_text("")
    assert find_recipe_folder("ablations") == Path("ablations")


def test_a_file_of_the_clone_gets_its_name_outside():
    with pytest.raises(RecipeError, match="no recipe at recipes/easy-vqa.yaml; did you mean 'easy-vqa'"):
        find_recipe("recipes/easy-vqa.yaml")


@pytest.mark.parametrize("given", ["ablation-guided", "recipes/ablations-guided", "setup.yaml"])
def test_an_unknown_folder_gets_the_nearest(given):
    Path("setup.yaml").write_text("")  # a file is no folder
    hint = "known: ablations, ablations-guided" if given == "setup.yaml" else "did you mean 'ablations-guided'"
    with pytest.raises(RecipeError, match=f"there are no recipes in {given}, neither .*{hint}"):
        find_recipe_folder(given)


@pytest.mark.parametrize("arguments", [(), ("ablations",), ("ablations-scenes",)])
def test_ablate_finds_moais_folders(run_cli, arguments):
    done = run_cli("ablate", *arguments, "--dry-run")
    assert done.exit_code == 0, done.stderr
    assert ("scenes-without" if arguments == ("ablations-scenes",) else "step2-only") in done.stdout


def test_where_moai_is_not_installed_the_error_says_so(monkeypatch):
    monkeypatch.setattr(recipe_places, "shipped_folder", lambda: None)
    monkeypatch.setattr(recipe_places, "registry", load_registry)
    with pytest.raises(RecipeError, match=r"'easy-vqa' in ./recipes \(moai's own .* pip install -e \.\)"):
        find_recipe("easy-vqa")


def test_in_a_zip_file_there_are_none(tmp_path):
    import zipfile

    with zipfile.ZipFile(tmp_path / "moai.zip", "w") as archive:
        for path in [*(ROOT / "moai").rglob("*.py"), *(ROOT / "recipes").rglob("*.*")]:
            name = path.relative_to(ROOT).as_posix()
            archive.write(path, name if name.startswith("moai/") else f"moai/{name}")
    code = "import moai; from moai.recipe import places as r; print(moai.__file__, r.shipped_folder())"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "moai.zip")}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert "moai.zip" in done.stdout and done.stdout.split()[-1] == "None"
