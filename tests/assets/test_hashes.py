"""A checkpoint's frozen parts are recognised by hash; a missing or altered file is named."""

import hashlib

import pytest

from moai.assets.hashes import folder_hashes, sha256_file, verify
from moai.errors import CheckpointError


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "model.safetensors").write_bytes(b"weights")
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "notes.md").write_text("not hashed")
    (tmp_path / ".moai-asset.json").write_text("{}")
    return tmp_path


def test_a_file_hash_is_plain_sha256(folder):
    assert sha256_file(folder / "model.safetensors") == hashlib.sha256(b"weights").hexdigest()


def test_a_folder_hash_takes_the_model_files_and_leaves_out_bookkeeping(folder):
    assert list(folder_hashes(folder)) == ["config.json", "model.safetensors"]
    assert list(folder_hashes(folder, ["*.md"])) == ["notes.md"]


def test_an_untouched_folder_verifies(folder):
    verify(folder, folder_hashes(folder))


def test_an_altered_file_is_named_with_the_fix(folder):
    hashes = folder_hashes(folder)
    (folder / "model.safetensors").write_bytes(b"Weights")
    with pytest.raises(CheckpointError, match=r"'model.safetensors'.*altered.*restore"):
        verify(folder, hashes)


def test_a_missing_file_is_named_with_the_fix(folder):
    hashes = folder_hashes(folder)
    (folder / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"lacks the file 'config.json'; copy"):
        verify(folder, hashes)


def test_a_missing_folder_is_an_error_not_an_empty_answer(tmp_path):
    with pytest.raises(CheckpointError, match="does not exist"):
        folder_hashes(tmp_path / "nowhere")
