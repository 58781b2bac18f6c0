"""Examine whether torch, transformers and moai's own models can be imported, and which devices torch has.

Knows: the probe, which runs in a process of its own.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from typing import Any

from moai.dependencies import read_tested
from moai.doctor.findings import Findings
from moai.doctor.probe import MARK, MODULES
from moai.errors import DependencyError

LIBRARIES = ("torch", "transformers")
PATIENCE = 300  # seconds; torch takes most of a minute from a cold network disk


def examine_imports(findings: Findings) -> dict[str, Any]:
    """Report torch's version and devices, and each module that was tried: ``ok`` is None for those not reached."""
    lines, ending = _run_probe()
    reported: dict[str, list[Any]] = {}
    for line in lines:
        for key, value in json.loads(line).items():
            reported.setdefault(key, []).append(value)
    imported = reported.get("imported", [])
    tried = reported.get("started", [])
    reason = None
    if len(imported) < len(MODULES):
        reason = reported["failed"][0] if "failed" in reported else ending
        _report(tried[-1] if tried else MODULES[0], reason, findings)
    torch = reported.get("torch", [None])[0]
    for note in torch["notes"] if torch else ():
        findings.warning("torch", f"torch warns of CUDA: {note}", "update the driver, or go on without the GPU")
    listed = [{"name": name, "ok": name in imported or (False if name in tried else None)} for name in MODULES]
    return {"torch": torch, "modules": listed, "reason": reason}


def _report(module: str, reason: str, findings: Findings) -> None:
    if reason == f"ModuleNotFoundError: No module named '{module}'" and any(one.about == module for one in findings):
        return  # the dependencies say so
    findings.error(module, f"{module} cannot be imported: {reason}", _fix(module))


def _fix(module: str) -> str:
    """Name the command that installs the tested version again: of the module; of both libraries for one of moai's."""
    try:
        tested = read_tested().versions
    except DependencyError:  # the section about dependencies reports it
        tested = {}
    names = (module,) if module in LIBRARIES else LIBRARIES
    wanted = " ".join(f'"{name}=={tested[name]}"' if name in tested else name for name in names)
    return f"install what was tested: pip install --force-reinstall {wanted}"


def _run_probe() -> tuple[list[str], str]:
    """Run the probe; return its lines without their mark, and how its process ended."""
    # The paths of this process, so that what is imported there is what would be imported here.
    code = f"import sys; sys.path[:] = {ascii(sys.path)}; from moai.doctor.probe import main; main()"
    command = [sys.executable, "-P", "-c", code]
    try:
        done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=PATIENCE, check=False)
        output, ending = done.stdout, _ending(done.returncode, done.stderr)
    except subprocess.TimeoutExpired as expired:
        output, ending = expired.stdout or b"", f"it did not end within {PATIENCE} s"
    lines = output.decode("utf-8", errors="replace").splitlines()
    return [line.removeprefix(MARK) for line in lines if line.startswith(MARK)], ending


def _ending(code: int, stderr: bytes) -> str:
    if code < 0:
        return f"Python was ended by {signal.Signals(-code).name}"
    last = stderr.decode("utf-8", errors="replace").strip().splitlines()[-1:]
    return " ".join([f"Python ended with exit code {code}", *last])[:300]
