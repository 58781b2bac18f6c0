"""Every engine in tiny, saved as a folder: random but seeded weights, a real processor, a tokenizer of a few names.

Knows: what a folder from the hub looks like. Nothing is downloaded; each folder is made in well under a second. Weights
are scaled up where an untrained engine would find the same everywhere.
"""

from __future__ import annotations

from pathlib import Path

import torch
import transformers as hf

NAMES = ("cat", "red dog", "tv", "hot dog", "fire hydrant", "zebra")
WORDS = ("cat", "red", "dog", "tv", "hot", "fire", "hydrant", "zebra")
CLASSES = {0: "cat", 1: "dog", 2: "sky-other-merged", 3: "road"}
SWIN = {
    "image_size": 64, "patch_size": 4, "embed_dim": 8, "depths": [1] * 4, "num_heads": [1, 1, 2, 2], "window_size": 2,
}  # fmt: skip
SQUARE = {"height": 64, "width": 64}


def mask2former(folder: Path, size: dict | None = None) -> Path:
    """Four features per group of its 32 group norms: with one, a picture of one colour would be rounding errors."""
    config = hf.Mask2FormerConfig(
        backbone_config=hf.SwinConfig(**SWIN, out_features=["stage1", "stage2", "stage3", "stage4"]),
        feature_size=128, mask_feature_size=32, hidden_dim=32, encoder_feedforward_dim=32, encoder_layers=1,
        decoder_layers=2, num_attention_heads=2, dim_feedforward=32, num_queries=12, id2label=CLASSES,
        label2id={name: number for number, name in CLASSES.items()},
    )  # fmt: skip
    model = seeded(hf.Mask2FormerForUniversalSegmentation, config, seed=9)
    with torch.no_grad():
        model.class_predictor.weight.mul_(20)
        model.model.transformer_module.decoder.mask_predictor.mask_embedder.get_submodule("2.0").weight.mul_(30)
    return save(folder, model, hf.Mask2FormerImageProcessor(size=size or SQUARE, ignore_index=255))


def eomt(folder: Path) -> Path:
    config = hf.EomtConfig(
        hidden_size=32, num_hidden_layers=3, num_attention_heads=2, image_size=64, patch_size=8, num_blocks=2,
        num_queries=12, num_upscale_blocks=1, num_register_tokens=1, id2label=CLASSES,
        label2id={name: number for number, name in CLASSES.items()},
    )  # fmt: skip
    model = seeded(hf.EomtForUniversalSegmentation, config)
    with torch.no_grad():
        model.query.weight.mul_(30)
        model.class_predictor.weight.mul_(30)
        model.mask_head.fc3.weight.mul_(30)
    size = {"shortest_edge": 64, "longest_edge": 64}
    return save(folder, model, hf.EomtImageProcessor(size=size, do_pad=True))


def owlv2(folder: Path) -> Path:
    text = {
        "vocab_size": 514, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "projection_dim": 32,
        "num_attention_heads": 2, "max_position_embeddings": 16,
        "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 64, "patch_size": 16,
    }  # fmt: skip
    config = hf.Owlv2Config(text_config=text, vision_config=vision, projection_dim=32)
    model = seeded(hf.Owlv2ForObjectDetection, config)
    with torch.no_grad():
        for head in (model.class_head.logit_scale, model.class_head.logit_shift):
            head.weight.zero_()
        model.class_head.logit_scale.bias.fill_(5)
        model.box_head.dense2.weight.mul_(0.01)
        model.box_head.dense2.bias[2:] = 1  # boxes large enough to reach over the picture's edges and to overlap
    processor = hf.Owlv2Processor(hf.Owlv2ImageProcessor(size=SQUARE), clip_tokenizer(16))
    return save(folder, model, processor)


def grounding(folder: Path, kind: str = "MMGroundingDino") -> Path:
    vocabulary = {f"[unused{number}]": number for number in range(1040)}
    placed = {"[PAD]": 0, "[UNK]": 100, "[CLS]": 101, "[SEP]": 102, "[MASK]": 103, ".": 1012, "?": 1029}
    placed |= {word: 200 + number for number, word in enumerate(WORDS)}
    taken = set(placed.values())
    vocabulary = {token: number for token, number in vocabulary.items() if number not in taken} | placed
    config = getattr(hf, f"{kind}Config")(
        backbone_config=hf.SwinConfig(**SWIN, out_indices=[2, 3, 4]),
        text_config=hf.BertConfig(
            vocab_size=1040, hidden_size=32, num_hidden_layers=1, num_attention_heads=2, intermediate_size=64,
            max_position_embeddings=256,
        ),
        num_queries=10, encoder_layers=1, decoder_layers=2, encoder_ffn_dim=32, decoder_ffn_dim=32,
        encoder_attention_heads=2, decoder_attention_heads=2, d_model=32, num_feature_levels=4, encoder_n_points=2,
        decoder_n_points=2, max_text_len=32,
    )  # fmt: skip
    model = seeded(getattr(hf, f"{kind}ForObjectDetection"), config)
    size = {"shortest_edge": 128, "longest_edge": 160}
    tokenizer = hf.BertTokenizer(vocab=vocabulary)
    return save(folder, model, hf.GroundingDinoProcessor(hf.GroundingDinoImageProcessor(size=size), tokenizer))


def omdet(folder: Path) -> Path:
    text = hf.CLIPTextConfig(
        vocab_size=514, hidden_size=64, projection_dim=64, intermediate_size=64, num_hidden_layers=1,
        num_attention_heads=2, max_position_embeddings=77, bos_token_id=512, eos_token_id=513, pad_token_id=513,
    )  # fmt: skip
    config = hf.OmDetTurboConfig(
        text_config=text, backbone_config=hf.SwinConfig(**SWIN, out_indices=[1, 2, 3]),
        apply_layernorm_after_vision_backbone=False, image_size=64, text_projection_in_dim=64,
        text_projection_out_dim=64, class_embed_dim=64, task_encoder_hidden_dim=64, encoder_hidden_dim=32,
        vision_features_channels=[32] * 3, encoder_in_channels=[8, 16, 32], encoder_attention_heads=2,
        encoder_dim_feedforward=64, decoder_hidden_dim=32, decoder_num_heads=2, decoder_num_layers=2,
        decoder_dim_feedforward=64, num_queries=10, cache_size=2,
    )  # fmt: skip
    model = seeded(hf.OmDetTurboForObjectDetection, config)
    with torch.no_grad():
        generator = torch.Generator().manual_seed(1)
        model.language_backbone.text_projection.normal_(generator=generator)
    image_processor = hf.DetrImageProcessor(size=SQUARE)
    return save(folder, model, hf.OmDetTurboProcessor(image_processor, clip_tokenizer(77)))


def clip(folder: Path) -> Path:
    text = {
        "vocab_size": 514, "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1,
        "num_attention_heads": 2, "max_position_embeddings": 77,
        "bos_token_id": 512, "eos_token_id": 513, "pad_token_id": 513,
    }  # fmt: skip
    vision = {
        "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2,
        "image_size": 32, "patch_size": 16,
    }  # fmt: skip
    config = hf.CLIPConfig(text_config=text, vision_config=vision, projection_dim=32)
    size = {"image_processor": hf.CLIPImageProcessor(size={"shortest_edge": 32}, crop_size=32)}
    return save(folder, seeded(hf.CLIPModel, config), hf.CLIPProcessor(**size, tokenizer=clip_tokenizer(77)))


def clip_tokenizer(length: int) -> hf.CLIPTokenizer:
    """One token per character: as many as a name has characters."""
    letters = [chr(number) for number in [*range(33, 127), *range(161, 173), *range(174, 256)]]
    letters += [chr(256 + number) for number in range(256 - len(letters))]
    vocabulary = {letter: number for number, letter in enumerate(letters)}
    vocabulary |= {letter + "</w>": 256 + number for number, letter in enumerate(letters)}
    vocabulary |= {"<|startoftext|>": 512, "<|endoftext|>": 513}
    return hf.CLIPTokenizer(vocab=vocabulary, merges=[], model_max_length=length)


def seeded(kind: type, config: object, seed: int = 0) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return kind(config).eval()


def save(folder: Path, model: torch.nn.Module, processor: object) -> Path:
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return folder
