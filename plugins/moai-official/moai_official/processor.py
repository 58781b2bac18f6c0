"""Prepare the published checkpoint's prompts: tokenizer, image size and chat template of an imported run.

Knows: tokenizers and processors. The prompt's wording is part of what the checkpoint was trained with
(github.com/ByungKwanLee/MoAI at a7728a8, its evaluation code): system sentence, image, then turns.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from transformers import PreTrainedTokenizerFast, ViTImageProcessor

from moai import MoaiProcessor
from moai.errors import CheckpointError
from moai.plugin_api import chat_template

IMAGE = "<image>"
CLIP_MEAN = (0.48145466, 0.4578275, 0.40821073)
CLIP_STD = (0.26862954, 0.26130258, 0.27577711)
SYSTEM = "AI assistant should give helpful and detailed answers to user after fully understanding an image."
# The image stands after the system sentence, wherever in its turn it was given.
TEMPLATE = f"""\
{{{{- bos_token + '{SYSTEM} ' -}}}}
{{%- for message in messages -%}}
  {{%- for _ in range(message['content'].split('{IMAGE}') | length - 1) -%}}{{{{- '{IMAGE}' -}}}}{{%- endfor -%}}
{{%- endfor -%}}
{{%- for message in messages -%}}
  {{%- set words = message['content'] | replace('{IMAGE}', '') -%}}
  {{%- if loop.first -%}}{{{{- ' ' -}}}}{{%- endif -%}}
  {{{{- '[UNUSED_TOKEN_146]' + message['role'] + '\\n' + words + '[UNUSED_TOKEN_145]\\n' -}}}}
{{%- endfor -%}}
{{%- if add_generation_prompt -%}}{{{{- '[UNUSED_TOKEN_146]assistant\\n' -}}}}{{%- endif -%}}
"""


@dataclass(frozen=True)
class Found:
    """Hold a tokenizer that has the placeholder."""

    tokenizer: PreTrainedTokenizerFast
    image_token_id: int


def find_tokenizer(checkpoint: Path, given: str | Path | None, words: int) -> Found | None:
    """Find the tokenizer in ``given``, or beside the weights; ``None`` where the checkpoint has none.

    Raises:
        CheckpointError: ``given`` holds no ``tokenizer.json``, or it has ids that none of the ``words`` embeddings has.
    """
    folder = Path(given) if given is not None else (checkpoint if checkpoint.is_dir() else checkpoint.parent)
    if not (folder / "tokenizer.json").is_file():
        if given is None:
            return None
        raise CheckpointError(
            f"{folder} holds no tokenizer.json; convert a tokenizer.model to one with transformers, and name its folder"
        )
    # By class, not by AutoTokenizer: the published config.json asks for code from the checkpoint.
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    if IMAGE not in tokenizer.get_vocab():
        tokenizer.add_special_tokens({"additional_special_tokens": [IMAGE]})
    beyond = [token for token, number in tokenizer.get_vocab().items() if number >= words and token != IMAGE]
    if beyond:
        raise CheckpointError(
            f"the tokenizer in {folder} knows {len(beyond)} tokens beyond the checkpoint's {words} "
            f"(such as '{beyond[0]}'); give the checkpoint's own"
        )
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return Found(tokenizer, tokenizer.convert_tokens_to_ids(IMAGE))


def save_processor(out: Path, found: Found, image_size: int, tokens: int, experts: list[str], longest: int) -> None:
    """Write the run's processor: square images at the encoder's size, CLIP's normalisation, the published prompt."""
    size = {"height": image_size, "width": image_size}
    MoaiProcessor(
        image_processor=ViTImageProcessor(size=size, image_mean=CLIP_MEAN, image_std=CLIP_STD),
        tokenizer=found.tokenizer,
        chat_template=chat_template(TEMPLATE, None, IMAGE),
        image_token=IMAGE,
        image_tokens=tokens,
        experts=experts,
        max_aux_tokens=longest,
        max_length=longest,
    ).save_pretrained(out)
