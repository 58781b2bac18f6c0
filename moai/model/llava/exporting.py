"""Export a run as a LLaVA checkpoint: host, encoder and connector become one ``LlavaForConditionalGeneration``.

Knows: runs without mixers, and transformers' LLaVA. Tensors are copied, never computed with; placeholders that lie
outside the host's vocabulary get rows of zeros, which no image and no answer reads.
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch
from torch import nn
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor, PreTrainedModel

from moai.errors import CheckpointError
from moai.model.encoders.connectors import MLPConnector
from moai.model.encoders.image_input import EncoderImages
from moai.model.host.checks import embedding_factors
from moai.model.host.lora import merge_lora
from moai.model.modeling import MoaiForConditionalGeneration
from moai.model.processor.processor import MoaiProcessor

ROWS = 64  # word embeddings come in multiples of this where some are added, as in the published checkpoints


def export_llava(run: str | Path, out: str | Path) -> Path:
    """Write a run as a folder that ``LlavaForConditionalGeneration`` and ``LlavaProcessor`` of transformers open.

    Args:
        run: a run folder with an encoder of transformers, the connector ``mlp`` and no mixers.
        out: a folder that does not exist yet or is empty.

    Raises:
        CheckpointError: a part that LLaVA has no place for; the message names the recipe's key.
    """
    out = Path(out)
    if out.exists() and any(out.iterdir()):
        raise CheckpointError(f"{out} is not empty; name a new folder for the checkpoint")
    model, processor = MoaiForConditionalGeneration.from_pretrained(run), MoaiProcessor.from_pretrained(run)
    check_run(model, processor, str(run))
    merge_lora(model.host)
    llava = as_llava(model)
    llava.save_pretrained(out)
    _processor(model, processor).save_pretrained(out)
    return out


def check_run(model: MoaiForConditionalGeneration, processor: MoaiProcessor, name: str) -> None:
    """Refuse a run that is no LLaVA.

    Raises:
        CheckpointError: names the recipe's key.
    """
    images = model.images
    if not isinstance(images, EncoderImages):
        raise CheckpointError(f"{name} uses its host's own vision (vision.kind: host); that host is the checkpoint")
    body = images.vision.body
    refused = {
        "mixer.layers: []": len(model.mixers) > 0,
        "vision.connector.kind: mlp": type(images.connector) is not MLPConnector,
        "vision.reference: an encoder of transformers with patches": not hasattr(
            getattr(body, "config", None), "patch_size"
        ),
        "vision.drop_first: 0 or 1": images.vision.drop_first > 1,
        "perception.inject: mixers": bool(processor.experts) and processor.inject == "prompt",
        "a host that does not scale what it embeds": embedding_factors(model.host) != (1.0, 1.0),
    }
    if missing := [key for key, wrong in refused.items() if wrong]:
        raise CheckpointError(f"{name} is no LLaVA: it would need {', '.join(missing)}; export a run of such a recipe")


def as_llava(model: MoaiForConditionalGeneration) -> LlavaForConditionalGeneration:
    """Join a run's parts to transformers' LLaVA, which then shares its weights."""
    vision, connector, host = model.images.vision, model.images.connector, model.host
    config = LlavaConfig(
        text_config=copy.deepcopy(host.config),
        vision_config=copy.deepcopy(vision.body.config),
        image_token_index=model.config.image_token_id,
        image_seq_length=model.config.image_tokens,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default" if vision.drop_first else "full",
        vision_feature_layer=-1 if vision.layer is None else vision.layer,
        dtype=str(host.dtype).removeprefix("torch."),
    )
    with torch.device("meta"):
        made = LlavaForConditionalGeneration(config)
    made.model.language_model = host.base_model
    made.lm_head = host.get_output_embeddings()
    tower = made.model.vision_tower
    if type(tower) is type(vision.body):
        made.model.vision_tower = vision.body
    else:  # the same encoder, one level deeper
        tower.vision_model = vision.body
    made.model.vision_tower.to(host.dtype)
    for name, layer in (("linear_1", connector[0]), ("linear_2", connector[2])):
        setattr(made.model.multi_modal_projector, name, _linear(layer, host.dtype))
    made.generation_config = copy.deepcopy(model.generation_config)
    _add_rows(made, config.image_token_id)
    return made.eval()


def _linear(layer: nn.Linear, dtype: torch.dtype) -> nn.Linear:
    with torch.device("meta"):
        made = nn.Linear(layer.in_features, layer.out_features)
    tensors = {name: value.detach().to(dtype) for name, value in layer.state_dict().items()}
    made.load_state_dict(tensors, assign=True)
    return made


def _add_rows(model: PreTrainedModel, placeholder: int) -> None:
    """Make room for a placeholder outside the vocabulary: LLaVA looks it up before an image takes its place."""
    known = model.get_input_embeddings().num_embeddings
    if placeholder < known:
        return
    model.resize_token_embeddings(placeholder + 1, pad_to_multiple_of=ROWS, mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings(), model.get_output_embeddings()):
            table.weight[known:] = 0
    added = list(range(known, model.get_input_embeddings().num_embeddings))
    model.generation_config.suppress_tokens = [*(model.generation_config.suppress_tokens or []), *added]


def _processor(model: MoaiForConditionalGeneration, processor: MoaiProcessor) -> LlavaProcessor:
    config, drop = model.images.vision.body.config, model.images.vision.drop_first
    height, width = processor.images.size
    grid = (height // config.patch_size) * (width // config.patch_size)
    return LlavaProcessor(
        image_processor=processor.image_processor,
        tokenizer=processor.tokenizer,
        patch_size=config.patch_size,
        vision_feature_select_strategy="default" if drop else "full",
        num_additional_image_tokens=model.config.image_tokens + drop - grid,
        chat_template=processor.chat_template,
        image_token=processor.image_token,
    )
