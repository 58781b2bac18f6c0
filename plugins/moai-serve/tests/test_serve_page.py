"""docs/serving.md is true: its Python, its options with their defaults, its fields, its codes of errors."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import tiny
from moai_serve.command import serve
from moai_serve.fields import IGNORED, NEUTRAL, ChatRequest
from running_server import NAME

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "serving.md").read_text(encoding="utf-8")
SOURCES = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "plugins/moai-serve/moai_serve").glob("*.py"))


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def test_its_first_python_runs(served, tmp_path, monkeypatch, capsys):
    pytest.importorskip("openai", reason="the openai client is not installed: pip install openai")
    [code] = re.findall(r"```python\n(import base64.*?)```", PAGE, re.DOTALL)
    (tmp_path / "runs" / "quickstart").mkdir(parents=True)
    tiny.picture("red").save(tmp_path / "runs" / "quickstart" / "picture.png")
    monkeypatch.chdir(tmp_path)
    exec(code.replace(":8000", f":{served.port}").replace('model="quickstart"', f'model="{NAME}"'), {})
    assert "red" in capsys.readouterr().out


def test_it_lists_every_option_of_the_command():
    options = {option.opts[0] for option in serve.params if option.opts[0].startswith("--")} - {"--debug"}
    assert set(re.findall(r"`(--[a-z-]+)`", section("Batches"))) == options
    assert "| `--batch-size` | 16 |" in PAGE and "| `--max-waiting` | 256 |" in PAGE
    assert {o.name: o.default for o in serve.params if o.name in ("batch_size", "max_waiting", "timeout")} == {
        "batch_size": 16, "max_waiting": 256, "timeout": 120
    }  # fmt: skip


def test_it_says_what_becomes_of_every_field():
    said = section("What a request may say")
    assert {name for name in ChatRequest.model_fields if f"`{name}" not in said} - {"model"} == set()
    assert {name for name in IGNORED if f"`{name}`" not in said} == set()
    refused = next(line for line in said.splitlines() if "`tools`" in line)
    assert set(re.findall(r"`([a-z_]+)`", refused.partition("|")[2].partition("| refused")[0])) <= set(NEUTRAL)


def test_its_codes_are_those_of_the_server():
    rows = [line.split("|") for line in section("Errors").splitlines() if line.startswith(("| 4", "| 5"))]
    listed = {code for row in rows for code in re.findall(r"`([a-z_]+)`", row[2])}
    written = set(re.findall(r'"([a-z]+(?:_[a-z]+)*)"', SOURCES))
    own = {
        code for code in written if code.startswith(("invalid_", "too_many_", "forbidden_", "headers_too", "body_too"))
    }
    assert len(rows) > 10 and listed <= written
    assert own - listed == {"invalid_request", "invalid_request_error"}
