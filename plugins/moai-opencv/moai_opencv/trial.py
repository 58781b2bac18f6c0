"""Try a network in a process of its own: OpenCV's readers end the process that reads some damaged files.

Knows: processes. Which file it was is a sentence then, and the run goes on without the expert.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from moai.errors import AssetError

PROCESS = Path(__file__).with_name("trial_process.py")
SECONDS = 300  # for a network of hundreds of layers on a busy machine


def survive(model: Path, config: Path | None, width: int, height: int) -> None:
    """Raise AssetError when reading the network, or running it on a black picture, would end this process."""
    command = [sys.executable, "-I", str(PROCESS), str(model), str(config or ""), str(width), str(height)]
    try:
        done = subprocess.run(command, capture_output=True, check=False, timeout=SECONDS)
    except subprocess.TimeoutExpired as error:
        raise AssetError(f"OpenCV did not read {model} in {SECONDS} seconds; export a smaller network") from error
    if done.returncode < 0:
        raise AssetError(f"OpenCV crashes on {model} (signal {-done.returncode}); the file is damaged: export it again")
