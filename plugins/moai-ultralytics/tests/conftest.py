"""Tiny random weights of both detectors, of a CLIP to embed names with, and a picture to perceive."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

NAMES = ("traffic light", "bus", "person")


def enliven(model):
    """Change random weights, which find nothing anywhere, so that they find something of every name here and there."""
    import torch

    for layer in model.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.reset_running_stats()
            layer.momentum = None  # the plain mean of what comes through, once
    with torch.no_grad():
        model.train()(torch.rand(2, 3, 128, 128))
    model.eval()
    head = model.model[-1]
    for contrast in [*head.cv4, *getattr(head, "one2one_cv4", ())]:
        contrast.bias.data.fill_(0.0)
        contrast.logit_scale.data.fill_(-6.0)


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """``weights["world"]`` and so on: checkpoints of the smallest models that Ultralytics ships the plans of."""
    pytest.importorskip("ultralytics", reason="Ultralytics is not installed: pip install ultralytics")
    import torch
    from moai_ultralytics.containment import contained

    folder = tmp_path_factory.mktemp("ultralytics")
    patch = pytest.MonkeyPatch()
    patch.setenv("MOAI_CACHE", str(folder / "cache"))
    paths = {name: folder / f"yoloe-26n-{name}.pt" for name in ("world", "yoloe", "bare", "free", "plain")}
    with contained(1) as ultralytics:
        torch.manual_seed(0)
        world = ultralytics.YOLOWorld("yolov8n-worldv2.yaml")
        enliven(world.model)
        world.save(paths["world"])
        bare = ultralytics.YOLOE("yoloe-26n-seg.yaml")
        enliven(bare.model)
        bare.save(paths["bare"])
        bare.set_classes(list(NAMES), torch.nn.functional.normalize(torch.randn(1, 3, 512), dim=-1))
        bare.save(paths["yoloe"])
        ultralytics.YOLO("yolov8n.yaml").save(paths["plain"])
    yield {name: str(path) for name, path in paths.items()}
    patch.undo()


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """Folder of a tiny random CLIP whose text embeddings have the width that YOLO-World expects."""
    import torch
    from transformers import CLIPConfig, CLIPModel, CLIPTokenizer
    from transformers.convert_slow_tokenizer import bytes_to_unicode

    folder = tmp_path_factory.mktemp("clip")
    alphabet = list(bytes_to_unicode().values())
    tokens = [*alphabet, *(f"{letter}</w>" for letter in alphabet), "<|startoftext|>", "<|endoftext|>"]
    tokenizer = CLIPTokenizer(vocab={token: i for i, token in enumerate(tokens)}, merges=[], model_max_length=32)
    small = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    text = {**small, "vocab_size": len(tokens), "max_position_embeddings": 32}
    text |= {"bos_token_id": len(tokens) - 2, "eos_token_id": len(tokens) - 1, "pad_token_id": len(tokens) - 1}
    torch.manual_seed(0)
    config = CLIPConfig(
        text_config=text, vision_config={**small, "image_size": 32, "patch_size": 16}, projection_dim=512
    )
    CLIPModel(config).eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


@pytest.fixture
def picture_of_noise():
    pixels = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    return Image.fromarray(pixels).resize((160, 120), Image.Resampling.BICUBIC)
