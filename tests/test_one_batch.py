"""One batch builder: nobody else pads rows of tokens or builds their masks, found in the sources."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BUILDERS = {"moai/model/processor/batch.py", "moai/model/processor/untrusted_text.py"}  # rows; auxiliary words
SOURCES = sorted(
    path for folder in ("moai", "plugins") for path in (ROOT / folder).rglob("*.py")
    if "tests" not in path.parts
)  # fmt: skip
MASKS = {"attention_mask", "prompt_mask", "labels", "aux_attention_mask"}
MAKERS = {"ones", "zeros", "full", "ones_like", "zeros_like", "full_like", "tensor"}


def builds_rows(code: str) -> list[str]:
    """Calls that pad token ids, and assignments of a mask or of labels that was just made."""
    found = []
    for node in ast.walk(ast.parse(code)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "pad":
            owner = ast.unparse(node.func.value)
            if "tokenizer" in owner or owner == "processor":
                found.append(f"{node.lineno}: {owner}.pad")
        pairs: list[tuple[str, ast.expr]] = []
        if isinstance(node, ast.Dict):
            keys = zip(node.keys, node.values, strict=True)
            pairs += [(key.value, value) for key, value in keys if isinstance(key, ast.Constant)]
        if isinstance(node, ast.Assign):
            for target in node.targets:
                if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
                    pairs.append((target.slice.value, node.value))
        for name, value in pairs:
            called = value.func.attr if isinstance(value, ast.Call) and isinstance(value.func, ast.Attribute) else ""
            if name in MASKS and called in MAKERS:
                found.append(f"{value.lineno}: builds {name}")
    return found


def test_nobody_else_pads_or_builds_masks():
    assert len(SOURCES) > 100
    found = {}
    for path in SOURCES:
        name = path.relative_to(ROOT).as_posix()
        if name not in BUILDERS and (lines := builds_rows(path.read_text(encoding="utf-8"))):
            found[name] = lines
    assert found == {}


@pytest.mark.parametrize(
    ("code", "count"),
    [
        ("self.processor.tokenizer.pad({'input_ids': rows})", 1),
        ("batch['labels'] = torch.full_like(ids, -100)", 1),
        ("inputs = {'attention_mask': torch.ones(2, 3)}", 1),
        ("x = torch.nn.functional.pad(x, (1, 0))", 0),
        ("batch['labels'] = other", 0),
    ],
)
def test_the_rule_can_fail(code, count):
    assert len(builds_rows(code)) == count
