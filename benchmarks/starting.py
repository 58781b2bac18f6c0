"""How long one waits before anything happens: the import, the help, and loading a run folder.

Knows: processes and folders. The run it loads has a host of SmolLM2's shape with random weights.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

import timm
from measure import Row, in_turns, ratio, spread
from safetensors.torch import load_file, save_file
from subjects import COMPRESSOR, OURS, bare
from transformers import AutoModelForCausalLM

from moai.model.config import MoaiConfig
from moai.model.encoders.vision import build_vision
from moai.model.host.loading import host_hashes
from moai.model.modeling import MoaiForConditionalGeneration

IMPORT, HELP, LOAD = 30.0, 300.0, 1.2  # ms over bare Python, ms, times
ENCODER = "test_efficientnet"


def run(quick: bool, repeats: int) -> list[Row]:
    """Milliseconds of the first two, a ratio of the third."""
    repeats = max(repeats, 5 if quick else 15)
    bare_python, imported = in_turns(lambda: _python("pass"), lambda: _python("import moai"), repeats)
    help_text = "import sys; sys.argv = ['moai', '--help']; from moai.cli.main import main; main()"
    _, helped = in_turns(lambda: _python("pass"), lambda: _python(help_text), repeats)
    over = (statistics.median(imported) - statistics.median(bare_python)) * 1000
    rows = [
        Row("import moai over bare Python", over, IMPORT, at_most=True, unit="ms",
            detail={"bare": spread(bare_python), "import": spread(imported)}),
        Row("moai --help", statistics.median(helped) * 1000, HELP, at_most=True, unit="ms",
            detail={"help": spread(helped)}),
    ]  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        return [*rows, *_load(Path(folder), repeats, max(3, repeats // 3))]


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def _load(folder: Path, repeats: int, starts: int) -> list[Row]:
    """A run over its host: what one waits for in a new process, and what a process pays that has loaded before."""
    host, weights = folder / "host", folder / "vision.safetensors"
    bare("smollm2").save_pretrained(host)
    save_file(timm.create_model(ENCODER, pretrained=False, num_classes=0, global_pool="").state_dict(), weights)
    vision = {"architecture": ENCODER, "reference": str(weights)}
    config = MoaiConfig(
        host={"reference": str(host), "revision": None, "dtype": "bfloat16", "sha256": host_hashes(str(host), None)},
        vision={"kind": "encoder", **vision},
        connector={"kind": "mlp", "options": {}},
        compressor=COMPRESSOR,
        mixer={"layers": None, "every": 8, **OURS},
        text_config=bare("smollm2").config,
    )
    model = MoaiForConditionalGeneration(config, host=bare("smollm2"), vision=build_vision(**vision))
    model.save_pretrained(folder / "run")

    def encoder() -> None:
        body = timm.create_model(ENCODER, pretrained=False, num_classes=0, global_pool="")
        body.load_state_dict(load_file(weights))

    def bare_host() -> None:
        AutoModelForCausalLM.from_pretrained(host, dtype="bfloat16")

    def whole() -> None:
        MoaiForConditionalGeneration.from_pretrained(folder / "run")

    ours = "from moai.model.modeling import MoaiForConditionalGeneration as m; m.from_pretrained({!r})"
    theirs = "from transformers import AutoModelForCausalLM as m; m.from_pretrained({!r}, dtype='bfloat16')"
    slow, fast = in_turns(
        lambda: _python(ours.format(str(folder / "run"))), lambda: _python(theirs.format(str(host))), starts
    )
    detail = {"run": spread(slow), "parts": spread(fast)}
    name = "loading a run over loading its bare host, each in a process of its own"
    rows = [Row(name, ratio(slow, fast), LOAD, at_most=True, detail=detail)]
    for name, parts in (("its bare host", [bare_host]), ("its bare host and its encoder", [bare_host, encoder])):
        slow, fast = in_turns(whole, lambda parts=parts: [part() for part in parts], repeats)
        detail = {"run": spread(slow), "parts": spread(fast)}
        name = f"loading a run over loading {name}, once more in one process"
        rows.append(Row(name, ratio(slow, fast), LOAD, at_most=True, detail=detail))
    return rows
