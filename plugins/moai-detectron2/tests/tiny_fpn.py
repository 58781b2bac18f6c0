"""A Panoptic FPN with few channels and random weights, for tests that have detectron2.

Knows: detectron2's configuration keys. Scores are scaled up, since an untrained detector is sure of nothing.
"""

from __future__ import annotations

from pathlib import Path

FEATURES = 30  # about how large the features are that the heads get
CONFIG = """
VERSION: 2
MODEL:
  META_ARCHITECTURE: "PanopticFPN"
  MASK_ON: True
  BACKBONE: {NAME: "build_resnet_fpn_backbone"}
  RESNETS: {DEPTH: 50, OUT_FEATURES: ["res2", "res3", "res4", "res5"], STEM_OUT_CHANNELS: 8, RES2_OUT_CHANNELS: 16,
    WIDTH_PER_GROUP: 4}
  FPN: {IN_FEATURES: ["res2", "res3", "res4", "res5"], OUT_CHANNELS: 16}
  ANCHOR_GENERATOR: {SIZES: [[32], [64], [128], [256], [512]], ASPECT_RATIOS: [[0.5, 1.0, 2.0]]}
  RPN: {IN_FEATURES: ["p2", "p3", "p4", "p5", "p6"], POST_NMS_TOPK_TEST: 20, PRE_NMS_TOPK_TEST: 50}
  ROI_HEADS: {NAME: "StandardROIHeads", IN_FEATURES: ["p2", "p3", "p4", "p5"]}
  ROI_BOX_HEAD: {NAME: "FastRCNNConvFCHead", NUM_FC: 2, FC_DIM: 32, POOLER_RESOLUTION: 7}
  ROI_MASK_HEAD: {NAME: "MaskRCNNConvUpsampleHead", NUM_CONV: 1, CONV_DIM: 16, POOLER_RESOLUTION: 14}
  SEM_SEG_HEAD: {CONVS_DIM: 32}
DATASETS: {TRAIN: ["coco_2017_train_panoptic_separated"]}
"""


def make(folder: Path) -> tuple[str, str]:
    """Write configuration and weights; their paths."""
    import torch
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    (folder / "tiny.yaml").write_text(CONFIG, encoding="utf-8")
    config = get_cfg()
    config.merge_from_file(str(folder / "tiny.yaml"))
    config.MODEL.DEVICE = "cpu"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build_model(config).eval()
        for name, tensor in model.state_dict().items():
            if name.endswith("weight") and tensor.dim() > 1:
                tensor.normal_(0, tensor[0].numel() ** -0.5)
        heads = model.roi_heads
        scores, deltas = heads.box_predictor.cls_score.weight.data, heads.box_predictor.bbox_pred.weight.data
        scores.mul_(5 / FEATURES)
        scores[-1] = 0  # or everything would be background
        for offsets in (deltas, model.proposal_generator.rpn_head.anchor_deltas.weight.data):
            offsets.mul_(0.1 / FEATURES)  # boxes near their anchors, not outside of the picture
        model.sem_seg_head.predictor.weight.data.mul_(10)
    torch.save({"model": model.state_dict(), "iteration": 1}, folder / "tiny.pth")
    return str(folder / "tiny.yaml"), str(folder / "tiny.pth")
