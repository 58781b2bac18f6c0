"""The format of run folders: its number, and the refusal of folders that have another.

Knows: ``config.json`` as plain data; neither torch nor transformers, so that every command can ask first.
"""

from __future__ import annotations

import json
from pathlib import Path

from moai.errors import CheckpointError

FORMAT = 3  # raise it when a run folder of before could no longer be opened, or would mean something else
WRITERS = {None: "0.1", 2: "0.2"}  # format -> the version of moai that wrote it


def check_format(folder: str | Path) -> None:
    """Refuse a run folder of another format; a folder without ``config.json`` holds no finished run and passes.

    Raises:
        CheckpointError: the folder has another format, with the version that opens it; or its config.json is damaged.
    """
    path = Path(folder) / "config.json"
    if not path.is_file():
        return
    try:
        config = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError(
            f"{path} is damaged ({error}); copy the run folder again, or save the model anew"
        ) from None
    if not isinstance(config, dict) or config.get("model_type") != "moai":
        return  # no run folder; whoever opens it says what is missing
    found = config.get("format")
    if found in WRITERS:
        writer = WRITERS[found]
        raise CheckpointError(f"{folder} was written by moai {writer}; open it with that version, or train it again")
    if found != FORMAT:
        raise CheckpointError(
            f"{folder} has run format {found}, and this version of moai opens {FORMAT}; "
            "open it with the version that wrote it, or train it again"
        )
