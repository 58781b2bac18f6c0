"""The frozen parts, loaded by reference: the host, in full or quantised, and the check that they are the same files.

Knows: files, and transformers' loading. Weights of hosts and encoders are never written, only named and hashed.
"""

from __future__ import annotations

import importlib.util
from typing import TYPE_CHECKING

import torch
from torch import nn

from moai.assets.hashes import folder_hashes, verify
from moai.assets.host import resolve_host
from moai.assets.known_hashes import known_sha256
from moai.assets.resolver import resolve
from moai.compat import without_bars
from moai.errors import CheckpointError, HostError, nearest
from moai.model.host.checks import check_configuration, check_vision

if TYPE_CHECKING:
    from transformers import PreTrainedConfig

QUANTIZATIONS = ("nf4", "int8")


def load_host(
    reference: str,
    revision: str | None,
    dtype: torch.dtype,
    *,
    quantization: str | None = None,
    own_vision: bool = False,
    **kwargs,
):
    """Load the frozen host; see :func:`moai.assets.host.resolve_host` for what ``reference`` may be.

    Args:
        dtype: of its weights; with ``quantization``, what it computes in.
        quantization: ``"nf4"`` or ``"int8"``, by bitsandbytes while loading; what is on disk stays as it is.
        own_vision: it is a vision-language model whose own vision is used.
        kwargs: of transformers' ``from_pretrained``.

    Raises:
        HostError: an encoder-decoder, a vision-language model where none is wanted or the other way round, an unknown
            quantisation, or bitsandbytes missing.
    """
    # Imported here: the import runs our own registration, which needs this module whole.
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText

    config, folder = host_configuration(reference, revision, own_vision=own_vision), resolve_host(reference, revision)
    if quantization is not None:
        kwargs["quantization_config"] = quantization_config(quantization, dtype)
    auto = AutoModelForImageTextToText if own_vision else AutoModelForCausalLM
    with without_bars():
        host = auto.from_pretrained(folder, config=config, dtype=dtype, **kwargs)
    if getattr(host, "is_quantized", False):
        _keep_differentiable(host)
    return host


def host_configuration(reference: str, revision: str | None, *, own_vision: bool = False) -> PreTrainedConfig:
    """Read the host's configuration, without its weights.

    Args:
        reference, revision, own_vision: as for :func:`load_host`.

    Raises:
        HostError: as for :func:`load_host`, but for what concerns quantisation.
    """
    from transformers import AutoConfig, PreTrainedConfig

    from moai.model.config import import_host

    folder = resolve_host(reference, revision)
    import_host(PreTrainedConfig.get_config_dict(folder)[0].get("model_type"))
    config = AutoConfig.from_pretrained(folder)
    check_configuration(config, str(reference))
    check_vision(config, str(reference), own_vision)
    return config


def _keep_differentiable(host: nn.Module) -> None:
    """Keep bitsandbytes from repacking 4-bit weights on CPUs.

    It does so at the first pass without gradients through a layer in evaluation mode, which a frozen host always is;
    every later backward pass through that layer then loses its gradient without an error.
    """
    for module in host.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            module.support_avx512bf16_for_cpu = False


def quantization_config(kind: str, dtype: torch.dtype):
    """Transformers' configuration for a quantisation by bitsandbytes; the output layer stays in ``dtype``.

    Raises:
        HostError: unknown, or bitsandbytes is not installed.
    """
    if kind not in QUANTIZATIONS:
        raise HostError(f"host.quantization '{kind}' is unknown{nearest(kind, QUANTIZATIONS)}")
    if importlib.util.find_spec("bitsandbytes") is None:
        raise HostError(f"host.quantization: {kind} needs the package 'bitsandbytes'; pip install bitsandbytes")
    from transformers import BitsAndBytesConfig

    if kind == "int8":
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=dtype)


def host_hashes(reference: str, revision: str | None) -> dict[str, str]:
    """SHA-256 of the host's weight files; config.json is left out, since it names the version that converted it."""
    return folder_hashes(resolve_host(reference, revision), ("*.safetensors",), known_sha256)


def check_frozen(config) -> None:
    """Verify that host and vision encoder are the files that a :class:`MoaiConfig` records.

    Raises:
        CheckpointError: names the file and the fix.
    """
    if not config.host.get("scratch"):  # the run folder has all weights of a host that started from random ones
        expected = config.host.get("sha256") or {}
        verify(resolve_host(config.host["reference"], config.host.get("revision")), expected, known_sha256)
    vision = config.vision
    if vision.get("sha256"):
        path = resolve(vision["reference"], vision.get("revision"))
        if known_sha256(path) != vision["sha256"]:
            raise CheckpointError(
                f"{path} is not the vision encoder this run was trained with; "
                f"delete the cached copy of {vision['reference']} so that it is fetched again"
            )
