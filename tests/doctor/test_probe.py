"""The probe: torch that raises, crashes or hangs is a finding, and devices are described."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest

from moai.doctor import imports, probe
from moai.doctor.findings import Findings


@pytest.fixture
def fake_torch(tmp_path, monkeypatch):
    """``fake_torch(code)``: what the probe finds, with such a torch in front of the real one."""

    def examine(code):
        (tmp_path / "torch.py").write_text(code)
        monkeypatch.syspath_prepend(tmp_path)
        findings = Findings()
        return imports.examine_imports(findings), [finding.problem for finding in findings]

    return examine


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("raise OSError('libtorch.so is gone')", "OSError: libtorch.so is gone"),
        ("raise SystemExit('no')", "SystemExit: no"),
        ("import os; os._exit(3)", "Python ended with exit code 3"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGKILL)", "Python was ended by SIGKILL"),
        ("print('moai says hello'); import no_such_library", "ModuleNotFoundError: No module named 'no_such_library'"),
        ("", "AttributeError: module 'torch' has no attribute"),  # the empty folder of a half removed installation
    ],
)
def test_torch_that_does_not_import_is_a_finding(fake_torch, code, reason):
    facts, problems = fake_torch(code)
    assert facts["reason"].startswith(reason) and facts["torch"] is None
    assert [module["ok"] for module in facts["modules"]] == [False, None, None, None]
    assert problems == [f"torch cannot be imported: {facts['reason']}"]


@pytest.mark.slow
def test_torch_that_never_returns_is_a_finding(fake_torch, monkeypatch):
    monkeypatch.setattr(imports, "PATIENCE", 3)
    facts, problems = fake_torch("import time; time.sleep(60)")
    assert facts["reason"] == "it did not end within 3 s" and len(problems) == 1


def cuda(**functions):
    return SimpleNamespace(
        **{"is_available": lambda: True, "device_count": lambda: 1, **functions},
    )


def torch_with(cuda):
    cpu = SimpleNamespace(get_cpu_capability=lambda: "AVX512")
    mps = SimpleNamespace(is_available=lambda: True)
    return SimpleNamespace(
        __version__="2.14.1",
        get_num_threads=lambda: 3,
        backends=SimpleNamespace(cpu=cpu, mps=mps),
        version=SimpleNamespace(cuda="13.0"),
        cuda=cuda,
    )


def test_devices_are_described():
    properties = SimpleNamespace(name="Great GPU", total_memory=8)
    facts = probe.describe_torch(torch_with(cuda(get_device_properties=lambda index: properties)))
    assert facts == {
        "version": "2.14.1", "threads": 3, "instructions": "AVX512", "cuda_build": "13.0", "mps": True, "notes": [],
        "cuda": [{"index": 0, "name": "Great GPU", "bytes": 8}],
    }  # fmt: skip


def test_a_driver_that_fails_leaves_the_processor():
    def warns():
        import warnings

        warnings.warn("CUDA initialization: the driver is\n too old", stacklevel=2)
        return False

    assert probe.describe_torch(torch_with(cuda(is_available=warns)))["notes"] == [
        "CUDA initialization: the driver is too old"
    ]

    def fails(index):
        raise RuntimeError("device is lost")

    facts = probe.describe_torch(torch_with(cuda(get_device_properties=fails)))
    assert facts["notes"] == ["RuntimeError: device is lost"] and facts["cuda"] == [] and facts["threads"] == 3


def test_the_real_torch_is_described():
    import torch

    facts = probe.describe_torch(torch)
    assert facts["version"] == torch.__version__ and facts["threads"] > 0 and facts["instructions"]
    json.dumps(facts)
