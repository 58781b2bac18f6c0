"""The lock is what its readers take it for: whole, hashed, for each Python and platform, and allowed by every package.

Floors are checked where they are installed: `make test-floor` runs these tests too.
"""

from __future__ import annotations

import importlib.metadata
import json
import re
import sys
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
LOCK = ROOT / "requirements.lock"
PROJECTS = sorted([ROOT / "pyproject.toml", *ROOT.glob("plugins/*/pyproject.toml")])
PLATFORMS = {"linux": "x86_64", "darwin": "arm64", "win32": "AMD64"}
SYSTEMS = {"linux": "Linux", "darwin": "Darwin", "win32": "Windows"}


sys.path.insert(0, str(ROOT / ".ci"))  # what makes environments is no part of the package
try:
    import environment
    import versions
finally:
    sys.path.pop(0)

PYTHONS = versions.TESTED_PYTHONS
WHERE = [(python, platform) for python in PYTHONS for platform in PLATFORMS]


def entries() -> list[tuple[Requirement, list[str]]]:
    """Each pin with its hashes."""
    blocks = re.split(r"\n(?=[A-Za-z0-9])", LOCK.read_text(encoding="utf-8").partition("\n")[2])
    found = []
    for block in blocks:
        first, *rest = block.rstrip().split("\n")
        found.append((Requirement(first.rstrip(" \\")), [line.strip(" \\") for line in rest]))
    return found


def pins(python: str, platform: str) -> dict[str, Version]:
    """Normalised name -> version on a Python and platform; two pins of one name there are an error."""
    place = {
        "python_version": python, "python_full_version": f"{python}.4", "sys_platform": platform,
        "platform_machine": PLATFORMS[platform], "platform_system": SYSTEMS[platform],
        "os_name": "nt" if platform == "win32" else "posix",
    }  # fmt: skip
    found: dict[str, Version] = {}
    for pin, _ in entries():
        if pin.marker is None or pin.marker.evaluate(place):
            name = canonicalize_name(pin.name)
            assert name not in found, f"{name} is pinned twice for Python {python} on {platform}"
            found[name] = Version(next(iter(pin.specifier)).version)
    return found


def wanted(path: Path) -> list[Requirement]:
    """What a package needs to run, to be tested and to be built; the project's own packages are left out."""
    data = tomllib.loads(path.read_text(encoding="utf-8"))
    project = data["project"]
    lines = [*project.get("dependencies", []), *data["build-system"]["requires"]]
    lines += project.get("optional-dependencies", {}).get("test", [])
    own = {tomllib.loads(p.read_text(encoding="utf-8"))["project"]["name"] for p in PROJECTS}
    return [requirement for line in lines if (requirement := Requirement(line)).name not in own]


def name_of(path: Path) -> str:
    return path.parent.name


def test_every_pin_is_exact_and_hashed_and_no_index_is_named():
    found = entries()
    assert len(found) > 80
    for pin, hashes in found:
        [specifier] = pin.specifier
        assert specifier.operator == "==" and "*" not in specifier.version, pin
        assert hashes and all(re.fullmatch(r"--hash=sha256:[0-9a-f]{64}", line) for line in hashes), pin
        assert pin.url is None
    text = LOCK.read_text(encoding="utf-8")
    assert "://" not in text and "--index" not in text and "--find-links" not in text and "/" not in text


@pytest.mark.parametrize("path", PROJECTS, ids=name_of)
@pytest.mark.parametrize(("python", "platform"), WHERE)
def test_the_lock_satisfies_every_package(path, python, platform):
    locked = pins(python, platform)
    requirements = wanted(path)
    assert requirements
    for requirement in requirements:
        version = locked.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked; run make lock"
        assert version in requirement.specifier, f"{version} is locked, {requirement} is wanted; run make lock"


def test_a_lock_that_does_not_satisfy_is_found(monkeypatch, tmp_path):
    text = LOCK.read_text(encoding="utf-8")
    older = re.sub(r"^transformers==\S+", "transformers==5.1.0", text, flags=re.MULTILINE)
    (tmp_path / "older.lock").write_text(older)
    monkeypatch.setitem(globals(), "LOCK", tmp_path / "older.lock")
    with pytest.raises(AssertionError, match="5.1.0 is locked, transformers>=.* is wanted; run make lock"):
        test_the_lock_satisfies_every_package(ROOT / "pyproject.toml", "3.11", "linux")


def test_pythons_that_are_tested_may_install_it():
    for path in PROJECTS:
        allowed = Requirement(f"python{tomllib.loads(path.read_text())['project']['requires-python']}").specifier
        assert all(python in allowed for python in PYTHONS)
        assert f"{'.'.join(map(str, environment.OLDEST))}" in str(allowed)


def test_what_the_locked_packages_need_is_locked_too():
    """Of those that are installed here as locked; pip installs them without asking what they need."""
    place = {"extra": ""}
    locked = pins(f"{sys.version_info[0]}.{sys.version_info[1]}", sys.platform)
    checked = 0
    for name, version in locked.items():
        try:
            found = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            continue
        if Version(found.version) != version:
            continue
        for line in found.requires or []:
            need = Requirement(line)
            if need.marker is not None and not need.marker.evaluate(place):
                continue
            if canonicalize_name(need.name) in versions.EXCLUDED:
                continue
            checked += 1
            have = locked.get(canonicalize_name(need.name))
            assert have is not None and need.specifier.contains(have, prereleases=True), f"{name} needs {need}"
    assert checked > 100 or not installed_as_locked(locked)


def installed_as_locked(locked: dict[str, Version]) -> bool:
    """True in the environment that the lock makes; floor and newest differ."""
    return Version(importlib.metadata.version("transformers")) == locked["transformers"]


def test_packages_state_one_floor_for_one_dependency():
    """Or a floor would be stated that nothing installs: the highest of them decides."""
    floors: dict[str, set[str]] = {}
    for path in PROJECTS:
        for requirement in wanted(path):
            [bound] = requirement.specifier  # a floor, and no ceiling: the newest versions are tested as well
            assert bound.operator == ">=", f"{name_of(path)}: {requirement}"
            floors.setdefault(canonicalize_name(requirement.name), set()).add(bound.version)
    assert {name: sorted(stated) for name, stated in floors.items() if len(stated) > 1} == {}
    assert len(floors) > 25


def test_the_floor_that_is_installed_is_the_one_that_is_stated():
    """In the environment of `make test-floor`: nothing lifted a version above what `pyproject.toml` allows."""
    stated = {canonicalize_name(r.name): Version(next(iter(r.specifier)).version) for p in PROJECTS for r in wanted(p)}
    if Version(importlib.metadata.version("transformers")) != stated["transformers"]:
        pytest.skip("this is not the environment of make test-floor")
    here = {name: Version(importlib.metadata.version(name)).release for name in stated}
    # "77" may be met by 77.0.1, where that is the first file of 77.
    lifted = {name: have for name, have in here.items() if have[: len(stated[name].release)] != stated[name].release}
    assert lifted == {}


def test_the_versions_that_doctor_compares_with_are_the_locked_ones():
    told = json.loads((ROOT / versions.TESTED).read_text(encoding="utf-8"))["versions"]
    assert tuple(told) == PYTHONS
    direct = {canonicalize_name(requirement.name) for path in PROJECTS for requirement in wanted(path)}
    for python in PYTHONS:
        locked = pins(python, "linux")
        assert told[python] == {name: str(locked[name]) for name in sorted(direct)}


def test_what_is_left_out_of_the_lock_on_purpose_is_not_in_it():
    locked = {canonicalize_name(pin.name) for pin, _ in entries()}
    assert versions.EXCLUDED and locked.isdisjoint(versions.EXCLUDED)
    assert not any(name.startswith("moai") for name in locked)
