"""How the harness finds the model, and that finding it costs nothing."""

import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_the_entry_point_names_the_manifest():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    assert project["entry-points"]["lmms_eval.models"] == {"moai": "moai_lmms_eval:manifest"}
    assert any(requirement.startswith("lmms-eval") for requirement in project["optional-dependencies"]["eval"])


def test_being_found_loads_nothing_heavy():
    code = "import sys, moai_lmms_eval; print({'torch', 'transformers', 'numpy', 'lmms_eval'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
