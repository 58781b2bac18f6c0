"""Probe the imports that models need in a process of its own, and print a line of JSON after each step.

Knows: torch, guarded. A library that ends Python, or never returns, ends or blocks this process only.
"""

from __future__ import annotations

import importlib
import json
import warnings
from typing import Any

from moai.doctor.findings import describe_error

MARK = "moai-doctor "  # lines without it are what the libraries print themselves
MODULES = ("torch", "transformers", "moai.answering", "moai.training.trainer")


def main() -> None:
    """Import each module, and stop at the first that fails: those after it need it."""
    for name in MODULES:
        _tell("started", name)
        try:
            module = importlib.import_module(name)
            if name == "torch":
                _tell("torch", describe_torch(module))
        except (Exception, SystemExit) as error:  # an import may do anything
            _tell("failed", describe_error(error))
            return
        _tell("imported", name)


def describe_torch(torch: Any) -> dict[str, Any]:
    """Report torch's version, threads, the processor's instruction set, and the devices."""
    devices, notes = [], []
    with warnings.catch_warnings(record=True) as caught:  # torch warns here of a driver that is too old
        warnings.simplefilter("always")
        try:
            count = torch.cuda.device_count() if torch.cuda.is_available() else 0
            devices = [_cuda_device(torch, index) for index in range(count)]
        except Exception as error:  # drivers fail in many ways; the CPU works all the same
            notes.append(describe_error(error))
    notes += [" ".join(str(warning.message).split())[:300] for warning in caught]
    mps = getattr(torch.backends, "mps", None)
    return {
        "version": str(torch.__version__),
        "threads": torch.get_num_threads(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "cuda_build": torch.version.cuda,
        "cuda": devices,
        "mps": bool(mps is not None and mps.is_available()),
        "notes": notes,
    }


def _cuda_device(torch: Any, index: int) -> dict[str, Any]:
    properties = torch.cuda.get_device_properties(index)
    return {"index": index, "name": properties.name, "bytes": properties.total_memory}


def _tell(what: str, value: Any) -> None:
    print(MARK + json.dumps({what: value}), flush=True)
