"""Read a network with OpenCV and run it on the CPU: what OpenCV cannot use is a sentence, and the process stays as is.

Knows: OpenCV's readers, outputs and errors. OpenCV runs no code of a network's file, but some damaged files
crash its readers: ``trial`` is for those.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from moai.errors import AssetError

MAX_THREADS = 64
SILENT = 0  # OpenCV's LOG_LEVEL_SILENT
_WHERE = re.compile(r"OpenCV\([^)]*\) \S+: error: \([^)]*\) ?|in function '\w+'( >)? ?")  # in OpenCV's own source


class Network:
    """Hold a network that is read once and run picture by picture."""

    def __init__(self, model: Path, config: Path | None = None, threads: int = 1) -> None:
        """Read ``model``: ``.onnx``, or ``.pb`` with its ``.pbtxt`` in ``config``.

        Raises:
            AssetError: another kind of file, or one that OpenCV cannot read.
        """
        self.model, self.threads = model, threads
        with _contained(threads) as cv2, self._errors("OpenCV cannot read"):
            if model.is_dir() or (config is not None and config.is_dir()):
                raise AssetError(f"{model if model.is_dir() else config} is a folder; name the file in it")
            net = _read(cv2, model, config)
            if net.empty():
                raise AssetError(f"{model} holds no layers; export it again")
            net.setPreferableBackend(cv2.dnn.DNN_BACKEND_OPENCV)
            net.setPreferableTarget(cv2.dnn.DNN_TARGET_CPU)
            self.outputs: tuple[str, ...] = tuple(net.getUnconnectedOutLayersNames())
        self._net = net

    def run(self, blob: np.ndarray) -> dict[str, np.ndarray]:
        """Run on ``(1, 3, height, width)`` and return each output by its name.

        Raises:
            AssetError: the network cannot take a blob of this size.
        """
        height, width = blob.shape[2:]
        with (
            _contained(self.threads),
            self._errors(f"OpenCV cannot run a picture of {width} x {height} pixels through"),
        ):
            self._net.setInput(blob)
            found = self._net.forward(self.outputs)
        return {name: np.array(output) for name, output in zip(self.outputs, found, strict=True)}

    @contextmanager
    def _errors(self, doing: str) -> Iterator[None]:
        import cv2

        try:
            yield
        except (cv2.error, SystemError, MemoryError) as error:
            raise AssetError(
                f"{doing} {self.model}: {_reason(error)}; check the file and the expert's options"
            ) from error


def _read(cv2: Any, model: Path, config: Path | None) -> Any:
    kind = model.suffix.lower()
    if kind == ".onnx" and config is None:
        return cv2.dnn.readNetFromONNX(str(model))
    if kind == ".pb":
        return cv2.dnn.readNetFromTensorflow(str(model), "" if config is None else str(config))
    if kind == ".onnx":
        raise AssetError(f"{model} is an ONNX file, which has no configuration; leave the option config out")
    raise AssetError(f"{model} must be an .onnx file, or a .pb file of TensorFlow with its .pbtxt; export it as one")


def _reason(error: BaseException) -> str:
    text = _WHERE.sub("", " ".join(str(error).split()))
    return text[:200].rstrip(" .;") or type(error).__name__


@contextmanager
def _contained(threads: int) -> Iterator[Any]:
    """Give OpenCV as many threads as asked for, and keep its log from the terminal; undo both."""
    import cv2

    log = getattr(cv2.utils, "logging", cv2)  # OpenCV 4 has the functions at its top
    before, level = cv2.getNumThreads(), log.getLogLevel()
    cv2.setNumThreads(threads)
    log.setLogLevel(SILENT)
    try:
        yield cv2
    finally:
        log.setLogLevel(level)
        cv2.setNumThreads(before)
