"""Contain Ultralytics: no telemetry, no installing, no downloading; afterwards the process is as it was before.

Knows: what importing and running Ultralytics 8.4 changes outside of it. All of that belongs to the whole process, so
one thread is in here at a time.
"""

from __future__ import annotations

import copy
import importlib
import os
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import ModuleType
from typing import Any

from moai.errors import AssetError
from moai.plugin_api import cache_dir

# Read by Ultralytics when it is imported.
SWITCHES = {
    "YOLO_OFFLINE": "1",
    "YOLO_AUTOINSTALL": "0",
    "YOLO_VERBOSE": "0",
    "ULTRALYTICS_SAFE_LOAD": "1",
    "ULTRALYTICS_SKIP_REQUIREMENTS_CHECKS": "1",
}
# Written by Ultralytics, by the parts of torch that it imports, or by us for its sake.
ENVIRONMENT = (
    *SWITCHES,
    "YOLO_CONFIG_DIR",
    "OMP_NUM_THREADS",
    "NUMEXPR_MAX_THREADS",
    "TF_CPP_MIN_LOG_LEVEL",
    "TORCH_CPP_LOG_LEVEL",
    "KINETO_LOG_LEVEL",
    "CUBLAS_WORKSPACE_CONFIG",
    "TORCHINDUCTOR_CACHE_DIR",
)
_LOCK = threading.RLock()


@contextmanager
def contained(threads: int) -> Iterator[ModuleType]:
    """Hand out the module ``ultralytics``, which may do nothing but compute while the body runs.

    Args:
        threads: of torch and OpenCV, in the body.

    Raises:
        AssetError: the cache folder, where Ultralytics keeps its settings, cannot be written; or, from the body,
            Ultralytics wanted to download something.
    """
    import torch

    with _LOCK, ExitStack() as undo:
        _remember(undo)
        undo.enter_context(warnings.catch_warnings())
        undo.enter_context(torch.random.fork_rng(devices=[]))  # building a model draws numbers
        warnings.simplefilter("ignore")
        ultralytics = _import_ultralytics()
        for module, name, value in _overrides(threads):
            undo.callback(setattr, module, name, getattr(module, name))
            setattr(module, name, value)
        _set_threads(threads)
        yield ultralytics


def _remember(undo: ExitStack) -> None:
    """Have everything put back that Ultralytics changes, whether or not it is changed this time."""
    import cv2
    import numpy as np
    import PIL.Image
    import torch

    undo.callback(_restore_environment, {name: os.environ.get(name) for name in ENVIRONMENT})
    undo.callback(torch.set_num_threads, torch.get_num_threads())
    undo.callback(cv2.setNumThreads, cv2.getNumThreads())
    undo.callback(setattr, torch, "save", torch.save)
    undo.callback(setattr, PIL.Image, "open", PIL.Image.open)  # replaced by one that installs a package when it fails
    undo.callback(_set_numpy_printing, np.get_printoptions())
    undo.callback(_set_torch_printing, copy.copy(torch._tensor_str.PRINT_OPTS))
    undo.callback(_restore_safe_globals, torch.serialization.get_safe_globals())


def _import_ultralytics() -> ModuleType:
    if "ultralytics" in sys.modules:
        return sys.modules["ultralytics"]
    folder = cache_dir() / "ultralytics"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise AssetError(f"cannot write {folder}: {error.strerror}; set MOAI_CACHE to a folder that can be") from error
    os.environ.update(SWITCHES, YOLO_CONFIG_DIR=str(folder))
    ultralytics = importlib.import_module("ultralytics")
    ultralytics.settings.update({"sync": False})  # in our own folder: a user's settings are left alone
    return ultralytics


def _overrides(threads: int) -> list[tuple[Any, str, Any]]:
    """Set the switches in Ultralytics itself too: it may have been imported before, without them."""
    wanted = [
        ("ultralytics.utils.checks", "AUTOINSTALL", False),
        ("ultralytics.utils.checks", "ONLINE", False),
        ("ultralytics.nn.tasks", "SAFE_LOAD", True),
        ("ultralytics.utils.torch_utils", "NUM_THREADS", threads),
        ("ultralytics.utils.downloads", "safe_download", _refuse),
        ("ultralytics.utils.downloads", "get_github_assets", _refuse),
    ]
    modules = [(importlib.import_module(module), name, value) for module, name, value in wanted]
    return [*modules, (importlib.import_module("ultralytics.utils.events").Events, "__call__", _send_nothing)]


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssetError("Ultralytics wants to download something; name every file it needs in the expert's options")


def _send_nothing(self: Any, *args: Any, **kwargs: Any) -> None:
    """Replace the telemetry by nothing."""


def _set_threads(threads: int) -> None:
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)


def _restore_environment(before: dict[str, str | None]) -> None:
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value


def _set_numpy_printing(options: dict[str, Any]) -> None:
    import numpy as np

    np.set_printoptions(**options)


def _set_torch_printing(options: Any) -> None:
    import torch

    torch._tensor_str.PRINT_OPTS = options


def _restore_safe_globals(before: list[Callable]) -> None:
    import torch

    torch.serialization.clear_safe_globals()
    torch.serialization.add_safe_globals(before)
