"""Check an expert's declaration without loading it: attributes, imports, options, cache key.

Knows: the imports that registration may cost, and the parts of a cache key.
"""

from __future__ import annotations

import inspect
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

from moai.errors import ExpertError
from moai.expert import Expert
from moai.perception.cache.store import entry_key
from moai.testing.behaviour import require

IMPORT_SECONDS = 120  # for a fresh interpreter on a slow disk
# No plugin may import these at registration, whether it names them in `modules` or not.
HEAVY = ("torch", "transformers", "tensorflow", "jax", "onnxruntime", "timm", "cv2", "matplotlib", "sklearn")
_PROBING = "MOAI_CONTRACT_PROBE"  # environment variable: the module whose imports are being listed
_IMPORT_PROBE = """
import importlib, sys
import moai.expert
before = set(sys.modules)
importlib.import_module(sys.argv[1])
print(" ".join(name for name in dict.fromkeys(sys.argv[2:]) if name in sys.modules and name not in before))
"""


def check_declaration(kind: type[Expert]) -> None:
    """Check the class attributes, and that ``perceive`` is implemented."""
    require(isinstance(kind, type) and issubclass(kind, Expert), f"{kind!r} is not a subclass of moai.Expert")
    require(not inspect.isabstract(kind), f"{kind.__name__} does not implement perceive(images, context)")
    for field in ("name", "role", "version"):
        value = getattr(kind, field, None)
        require(isinstance(value, str) and value.strip() != "", f"{kind.__name__}.{field} must be a non-empty string")
    require(re.fullmatch(r"[a-z][a-z0-9_-]*", kind.name), f"name {kind.name!r} must be lower case: a-z, 0-9, - and _")
    require(re.fullmatch(r"[a-z][a-z0-9_]*", kind.role), f"role {kind.role!r} must be lower case: a-z, 0-9 and _")
    for field in ("requires", "modules"):
        value = getattr(kind, field)
        require(
            isinstance(value, tuple) and all(isinstance(item, str) for item in value),
            f"{kind.__name__}.{field} must be a tuple of strings, not {value!r}",
        )
    require(kind.role not in kind.requires, f"{kind.__name__} requires its own role {kind.role!r}")
    require(isinstance(kind.thread_safe, bool), f"{kind.__name__}.thread_safe must be True or False")
    for field in ("licence", "weights", "install"):
        require(isinstance(getattr(kind, field), str), f"{kind.__name__}.{field} must be a string")
    missing = kind.missing()
    require(not missing, f"cannot check '{kind.name}': {', '.join(missing)} not installed; {kind.install}")


def check_registration_is_light(kind: type[Expert]) -> None:
    """Check, in a fresh interpreter, that importing the plugin imports no name in ``modules`` or ``HEAVY``."""
    # A module that checks itself when it is imported would start one interpreter inside the other without end.
    inside = os.environ.get(_PROBING) == kind.__module__
    require(not inside, f"module {kind.__module__} calls check_expert when it is imported; call it in a test")
    path = os.pathsep.join(item or os.getcwd() for item in sys.path)
    run = subprocess.run(
        [sys.executable, "-c", _IMPORT_PROBE, kind.__module__, *kind.modules, *HEAVY],
        env={**os.environ, "PYTHONPATH": path, _PROBING: kind.__module__},
        capture_output=True,
        text=True,
        timeout=IMPORT_SECONDS,
    )
    error = run.stderr.strip().splitlines()
    require(run.returncode == 0, f"module {kind.__module__} does not import: {error[-1] if error else 'no message'}")
    loaded = run.stdout.strip()
    require(not loaded, f"importing {kind.__module__} imports {loaded}; import it inside load() or a function")


def check_options(kind: type[Expert]) -> None:
    """Check that options have defaults and a JSON schema, and refuse unknown names."""
    required = [name for name, field in kind.Options.model_fields.items() if field.is_required()]
    require(not required, f"options without a default: {', '.join(required)}; an expert must start without options")
    try:
        json.dumps(kind.Options.model_json_schema())
    except Exception as error:  # pydantic has several kinds; all of them mean a field's type is not plain data
        raise AssertionError(f"the options of '{kind.name}' have no JSON schema: {error}") from error
    require(kind.Options.model_config.get("frozen"), "Options must stay frozen: subclass moai.Options")
    try:
        kind(no_such_option_=1)
    except ExpertError:
        return
    raise AssertionError(f"expert '{kind.name}' accepts unknown options; subclass moai.Options and keep its config")


def check_cache_key(expert: Expert | type[Expert]) -> None:
    """Check that the cache key is equal for equal experts, and differs by version, option and weights.

    Each option is tried with another value that it accepts; one for which none is found (a path that must exist, say)
    is left out.
    """
    kind = expert if isinstance(expert, type) else type(expert)
    instance = expert() if isinstance(expert, type) else expert
    given = {name: getattr(instance.options, name) for name in kind.Options.model_fields}
    weights = instance.weights_id()
    require(isinstance(weights, str), f"weights_id() must return a string, not {type(weights).__name__}")
    require(weights == instance.weights_id(), "weights_id() returns another string when it is called again")
    key = entry_key("image", instance, None, weights)
    twin = type(instance)(**given)
    require(key == entry_key("image", twin, None, weights), "two experts with equal options have different cache keys")
    newer = type(kind.__name__, (kind,), {"version": kind.version + "+1"})(**given)
    require(key != entry_key("image", newer, None, weights), "another version has the same cache key")
    require(key != entry_key("image", instance, None, weights + "+1"), "other weights have the same cache key")
    for name in kind.Options.model_fields:
        for other in _variants(kind, given, name):
            require(
                key != entry_key("image", other, None, weights),
                f"option '{name}' changes from {given[name]!r} to {getattr(other.options, name)!r}, and the cache key "
                "stays; old perceptions would be taken for new ones",
            )


def _variants(kind: type[Expert], given: dict[str, Any], name: str) -> Iterator[Expert]:
    """Yield the expert with another value of one option, at most one."""
    value = given[name]
    schema = kind.Options.model_json_schema().get("properties", {}).get(name, {})
    candidates = [*schema.get("enum", ()), not value if isinstance(value, bool) else None]
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        candidates += [value + 1, value * 2, value / 2, value - 1, value + 0.01]
    candidates += [f"{value}x", (), ("x",), 1, 0.5, True]
    for candidate in candidates:
        try:
            other = kind(**{**given, name: candidate})
        except ExpertError:
            continue
        if getattr(other.options, name) != getattr(kind(**given).options, name):
            yield other
            return
